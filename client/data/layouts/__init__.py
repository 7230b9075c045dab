"""Layouts: how a folder's files become cases. A new layout is one reader: one file and one line of READERS.

A reader gets (folder, center or None for all, `Options`) and gives the cases, sorted by patient. What is wrong it
writes to ``options.problems``, one finished sentence each, so that all is said at once; it raises DataError where
nothing can be read.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from client.data.case import HECKTOR, Case, Values, untold_of
from client.data.hecktor.cases import read_hecktor
from client.data.layouts.brats import is_brats, read_brats
from client.data.layouts.declared import FILE, read_declared
from client.data.layouts.layout import Options
from client.data.layouts.nnunet import is_nnunet, read_nnunet
from common.data.batch import in_order
from common.errors import DataError, UnknownName
from common.plugins import Registry

log = logging.getLogger("fedgraft.center")

Reader = Callable[[Path, str | None, Options], list[Case]]
READERS: Registry[Reader] = Registry("reader", "build", {
    "brats": read_brats,
    "declared": read_declared,
    "hecktor": read_hecktor,
    "nnunet": read_nnunet,
})  # fmt: skip
AUTO, DECLARED, FALLBACK = "auto", "declared", "hecktor"
EDITIONS = ("2021", "2022", "2025", "2026")  # of HECKTOR, which one reader reads
DETECTORS: dict[str, Callable[[Path], bool]] = {  # the first that fits
    DECLARED: lambda folder: (folder / FILE).is_file(),
    "nnunet": is_nnunet,
    "brats": is_brats,
}


def find_cases(root: Path, *, center: str | None = None, mapping: str | None = None, layout: str = AUTO) -> list[Case]:
    """All cases below ``root`` (of one center, if named), sorted by patient.

    Args:
        mapping: path of the hospital's own table mapping (see configs/mapping), beside the shipped ones.
        layout: one of READERS, an edition of HECKTOR, the path of a declared layout's YAML, or auto.

    Raises:
        DataError: the folder is missing, it holds no case, or its tables or names are broken; all problems together.
            A whole outcome that cannot be used is none of them: it is in the cases, and stops the steps that need it.
        UnknownName: there is no such layout.
    """
    options = Options(mapping=mapping)
    cases = _read(Path(root), center, layout, options)
    if options.problems:
        raise DataError([*options.problems, *untold_of(cases)])
    return cases


class Surveyed(NamedTuple):
    """The cases that can be seen in a folder, and in one sentence each what stops a center (``problems``), what costs a
    few cases that are left out (``odd``) and what is worth knowing (``notes``)."""

    cases: list[Case]
    problems: list[str]
    odd: list[str]
    notes: list[str]


def survey(root: Path, *, center: str | None = None, mapping: str | None = None, layout: str = AUTO) -> Surveyed:
    """The cases that can be seen below ``root`` and everything that is wrong with names and tables.

    Args:
        center, mapping, layout: as in `find_cases`.

    Raises:
        DataError: the folder is missing, or its layout's description cannot be used.
        UnknownName: there is no such layout.
    """
    options = Options(mapping=mapping)
    cases = _read(Path(root), center, layout, options)
    return Surveyed(cases, [*options.problems, *untold_of(cases)], options.odd, options.notes)


def layout_kind(root: Path, layout: str = AUTO) -> str:
    """The reader that a folder is read by. Raises DataError, UnknownName."""
    if layout == AUTO:
        return next((kind for kind, fits in DETECTORS.items() if fits(Path(root))), FALLBACK)
    if layout in EDITIONS:
        return "hecktor"
    if layout in READERS:
        return layout
    if layout.endswith((".yaml", ".yml")):
        return DECLARED
    raise UnknownName("layout", layout, [AUTO, *EDITIONS, *READERS, "a path to a layout's .yaml"], where="layout")


def _read(root: Path, center: str | None, layout: str, options: Options) -> list[Case]:
    if not root.is_dir():
        raise DataError(
            f"The data folder '{root}' does not exist; set data.root to the folder that holds imagesTr, hecktor_nii or "
            "the patients' folders."
        )
    kind = layout_kind(root, layout)
    if kind == DECLARED and layout not in (AUTO, DECLARED):
        options.layout = Path(layout)
    cases = READERS[kind](root, center, options)
    for sentence in dict.fromkeys(options.odd):
        log.warning("folder: %s", sentence)
    return cases


@dataclass(frozen=True)
class Contents:
    """What a folder holds.

    Args:
        layout: the reader's name.
        centers: cases by center.
        modalities: of any case, in order; the reference first in ``reference``.
        structures: values by name.
        labeled: cases with a label.
        notes: worth knowing, and stopping nothing.
    """

    layout: str
    centers: dict[str, int]
    modalities: tuple[str, ...]
    reference: str
    structures: dict[str, Values]
    labeled: int
    notes: tuple[str, ...]

    @property
    def said(self) -> str:
        """The finding in one line."""
        centers = ", ".join(f"{code} {count}" for code, count in self.centers.items())
        return (
            f"{self.layout} layout: {sum(self.centers.values())} cases of {_count(self.centers)} ({centers}); "
            f"{', '.join(self.modalities) or 'no images'} on the {self.reference}'s grid; {self.labeled} labels of "
            f"{', '.join(self.structures)}"
        )


def _count(centers: Mapping[str, int]) -> str:
    return "1 center" if len(centers) == 1 else f"{len(centers)} centers"


def contents(
    root: Path, *, mapping: str | None = None, layout: str = AUTO, center: str | None = None
) -> tuple[Contents, list[Case]]:
    """What a folder holds, and its cases. Raises DataError, UnknownName as `find_cases`."""
    options = Options(mapping=mapping)
    cases = _read(Path(root), center, layout, options)
    if options.problems:
        raise DataError(options.problems)
    return summary(layout_kind(Path(root), layout), cases, notes=options.notes), cases


def summary(layout: str, cases: Sequence[Case], *, notes: Sequence[str] = ()) -> Contents:
    """What cases (one or more) that a layout's reader found hold together."""
    first = cases[0]
    return Contents(
        layout,
        dict(sorted(Counter(case.center for case in cases).items())),
        in_order(name for case in cases for name in case.images),
        first.reference,
        dict(HECKTOR if first.structures is None else first.structures),
        sum(case.label is not None for case in cases),
        tuple(notes),
    )
