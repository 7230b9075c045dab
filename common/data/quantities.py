"""Quantities: what a center can tell of its patients before any training, each as a histogram with fixed bins.

The bins are part of the release, so that the histograms of centers that know nothing of each other can be laid side by
side, and nobody's own minimum or maximum is ever told. The first and the last bin of a number are open.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType

from common.data.records import CHOICE, FLAG, NUMBER, ORDERED, SCHEMA, WORDS
from common.tasks.cells import Cells, Histogram, Table

FORMAT = 1  # of the file that a center writes and the coordinator reads
RECORD, OUTCOME, IMAGE, LABEL = "record", "outcome", "image", "label"


@dataclass(frozen=True)
class Quantity:
    """One quantity of a patient.

    Args:
        source: ``record``, ``outcome``, ``image`` or ``label``.
        edges: of a number's bins, ascending; a value on an edge is of the bin above it.
        levels: of a quantity that is no number, in their order.
    """

    name: str
    source: str
    unit: str = ""
    edges: tuple[float, ...] = ()
    levels: tuple[str, ...] = ()

    @property
    def bins(self) -> tuple[str, ...]:
        """What each bin holds, in words."""
        if self.levels:
            return self.levels
        between = [f"{low:g} to {high:g}" for low, high in pairwise(self.edges)]
        return (f"under {self.edges[0]:g}", *between, f"{self.edges[-1]:g} or more")

    @property
    def is_number(self) -> bool:
        return not self.levels

    @property
    def cells(self) -> Cells:
        """How it may be told: neighboring bins in cells of exactly the minimum, levels whole or not at all."""
        return Histogram((self.name,)) if self.is_number else Table((self.name,), axes=1)


EDGES: Mapping[str, tuple[float, ...]] = MappingProxyType(
    {
        "age": (30, 40, 50, 60, 70, 80),
        "weight_kg": (50, 60, 70, 80, 90, 100, 120),
        "performance_status": (1, 2, 3),
        "tumor_volume_ml": (1, 2, 5, 10, 20, 50, 100),
    }
)
SPACING, SUV, HU = (
    (0.75, 1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5, 6),
    (2, 4, 6, 8, 10, 15, 20, 30),
    (-60, -40, -20, 0, 20, 40, 60),
)
VOLUME = (1, 2, 5, 10, 20, 50, 100)


def _of_records() -> list[Quantity]:
    found = []
    for name, variable in SCHEMA.items():
        if variable.kind == NUMBER:
            found.append(Quantity(name, RECORD, variable.unit, EDGES[name]))
        elif variable.kind == FLAG:
            found.append(Quantity(name, RECORD, levels=("no", "yes")))
        elif variable.kind in (CHOICE, ORDERED):
            found.append(Quantity(name, RECORD, levels=variable.levels))
        else:
            assert variable.kind == WORDS  # words are told by nobody
    return found


QUANTITIES: dict[str, Quantity] = {
    one.name: one
    for one in (
        *_of_records(),
        Quantity("event", OUTCOME, levels=("censored", "event")),
        Quantity("follow_up_days", OUTCOME, "days", (180, 365, 730, 1095, 1460, 1825)),
        Quantity("CT_spacing_mm", IMAGE, "mm in plane", SPACING),
        Quantity("CT_slice_mm", IMAGE, "mm between slices", SPACING),
        Quantity("CT_body_HU", IMAGE, "HU, median of voxels above -200", HU),
        Quantity("PET_spacing_mm", IMAGE, "mm in plane", SPACING),
        Quantity("PET_slice_mm", IMAGE, "mm between slices", SPACING),
        Quantity("PET_high_SUV", IMAGE, "SUV, 99.9th percentile", SUV),
        Quantity("GTVp_ml", LABEL, "ml", VOLUME),
        Quantity("GTVn_ml", LABEL, "ml", VOLUME),
    )
}
