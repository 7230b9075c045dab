"""Statistics as a step: histograms of quantities that a center tells of its patients before any training.

Nothing is learned, so there is no head, no loss and no metric; what is told is the same as in a center's own file
(`python -m client statistics`), under the names of this module.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from common.config.options import STATISTICS
from common.data.quantities import FORMAT, IMAGE, QUANTITIES
from common.data.subgroups import LEVELS, apart, named
from common.errors import ConfigError
from common.protocol.messages import Sums
from common.tasks.base import Observation, Scored, Shapes

if TYPE_CHECKING:
    from torch import Tensor, nn

    from common.data.batch import Batch

MINIMUM = "minimum"  # the hospital's own, in which counts are told


class Statistics(Scored):
    """A step that is asked once and never trained: see `told_sums`."""

    kind = STATISTICS
    primary = "patients"
    sum_shapes: Shapes = {"cases": ()}  # noqa: RUF012

    def head(self, dim: int) -> nn.Module | None:
        return None

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        raise ConfigError("A step of statistics is asked once and never trained; set its rounds to 0.")

    def observe(self, output: Tensor, batch: Batch) -> list[Observation]:
        return []

    def sums(self, observations: Sequence[Observation]) -> Sums:
        return {"cases": np.array(float(len(observations)))}

    def metrics(self, sums: Sums) -> dict[str, float | None]:
        return {"patients": float(sums["cases"])}


def told_shapes() -> Shapes:
    """Name -> shape of every histogram that a center may tell, of everybody and of images by make of scanner."""
    shapes: Shapes = {name: (len(quantity.bins),) for name, quantity in QUANTITIES.items()}
    images = {name: shapes[name] for name, quantity in QUANTITIES.items() if quantity.source == IMAGE}
    for make in LEVELS["scanner"]:
        shapes |= named(f"scanner={make}", images)
    return shapes | {MINIMUM: ()}


def told_sums(file: Mapping[str, Any]) -> Sums:
    """A center's statistics, as its file has them, as sums that travel."""
    found = {name: np.array(row, np.float64) for name, row in file["histograms"].items()}
    for make, rows in file["by_scanner"].items():
        found |= named(f"scanner={make}", {name: np.array(row, np.float64) for name, row in rows.items()})
    return found | {MINIMUM: np.array(float(file["minimum"]))}


def told_file(center: str, sums: Sums, *, cases: int, unreadable: int, merged: bool) -> dict[str, Any]:
    """The same the other way: what arrived, in the form of a center's file. Raises ValueError for parts of patients."""
    rows = {name: value for name, value in sums.items() if name != MINIMUM}
    everybody, by_level = apart(rows)
    return {
        "format": FORMAT,
        "center": center,
        "minimum": _whole(sums.get(MINIMUM, np.array(1.0))),
        "cases": cases,
        "unreadable": unreadable,
        "merged": merged,
        "histograms": {name: _row(row) for name, row in sorted(everybody.items())},
        "by_scanner": {
            level.partition("=")[2]: {name: _row(row) for name, row in sorted(own.items())}
            for level, own in sorted(by_level.items())
        },
    }


def _row(values: np.ndarray) -> list[int]:
    return [_whole(value) for value in np.asarray(values, np.float64)]


def _whole(value: np.ndarray | float) -> int:
    number = float(value)
    if number != round(number) or number < 0:
        raise ValueError(f"{number:g} is no number of patients")
    return round(number)
