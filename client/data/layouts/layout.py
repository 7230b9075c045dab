"""Layout: where a folder keeps its images and labels, whose cases they are, and what the label's values mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from client.data.case import Values

ONE = "ONE"  # the center of a folder that names none, in a simulation


@dataclass(frozen=True)
class CenterRule:
    """How a case's center is told, beside a ``{center}`` in the patterns; at most one of these is set.

    Args:
        code: every case is this center's.
        pattern: a regular expression on the case's name; its first group is the center.
        table: a comma-separated file in the folder, with the names of its columns.
        guess: the letters that a case's name begins with, where there are two or more such beginnings.
    """

    code: str | None = None
    pattern: str | None = None
    table: str | None = None
    case_column: str = "case"
    center_column: str = "center"
    guess: bool = False


@dataclass(frozen=True)
class Layout:
    """One folder's layout.

    Args:
        name: how it is called in a sentence.
        images: modality -> pattern of its files, relative to the folder: ``{case}``, ``{center}`` and ``*``.
        reference: the modality whose image carries the grid.
        label, report: patterns as those of images, or None.
        structures: name -> the label's values.
        ignore: the label's value where nobody drew anything.
    """

    name: str
    images: Mapping[str, str]
    reference: str
    label: str | None = None
    structures: Mapping[str, Values] = field(default_factory=dict)
    ignore: int | None = None
    center: CenterRule = CenterRule()
    report: str | None = None


@dataclass
class Options:
    """What a reader is told beside the folder and the center, and where it says what is wrong.

    Args:
        mapping: path of the hospital's own table mapping.
        layout: path of a declared layout; None: ``layout.yaml`` in the folder.
        problems: filled by the reader, one finished sentence each, so that all of them are said at once.
        odd: filled by the reader; what costs a few cases, which are left out, and stops nothing.
        notes: filled by the reader; worth knowing, and stopping nothing.
    """

    mapping: str | None = None
    layout: Path | None = None
    problems: list[str] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
