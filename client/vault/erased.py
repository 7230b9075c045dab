"""What this hospital holds back from every step: modalities it does not share, and patients it has erased.

An erased patient leaves a tombstone in the vault: the ID, whether there was an event, and which files and fields there
were, never their values. It is what the split needs to keep every other patient on the side where they are; a patient
who trained one step must not test the next. The tombstone's case is never opened and never in a split's part.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from client.data.case import Case
from common.data.batch import CT, EHR
from common.errors import DataError
from common.files import write_json

FILE = "erased.json"
GONE = Path("erased")  # stands where a path stood


@dataclass(frozen=True)
class Tombstone:
    """What is kept of an erased patient."""

    patient: str
    center: str
    images: tuple[str, ...]
    label: bool
    event: int | None
    findings: bool
    fields: tuple[str, ...] = ()  # names of recorded clinical fields
    reference: str = CT
    report: bool = False  # as text

    def case(self) -> Case:
        """A case in the patient's place, for the split alone."""
        return Case(
            patient=self.patient,
            center=self.center,
            images=dict.fromkeys(self.images, GONE),
            label=GONE if self.label else None,
            record=dict.fromkeys(self.fields, ""),
            days=None if self.event is None else 0.0,
            event=self.event,
            findings=() if self.findings else None,
            report="" if self.report else None,
            erased=True,
            reference=self.reference,
        )


def tombstone_of(case: Case) -> Tombstone:
    """As much of a case as keeps its place in the split."""
    return Tombstone(
        case.patient,
        case.center,
        tuple(sorted(case.images)),
        case.label is not None,
        case.event,
        case.findings is not None,
        tuple(sorted(case.record)),
        case.reference,
        case.report is not None,
    )


def read_tombstones(vault: Path) -> list[Tombstone]:
    """The erased patients of a vault. Raises DataError where the list is damaged: it must never be ignored."""
    path = vault / FILE
    if not path.exists():
        return []
    try:
        return [_tombstone(entry) for entry in json.loads(path.read_text())]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"The vault's list of erased patients, {path.name}, cannot be read ({type(error).__name__}); restore it "
            "from a backup: without it erased patients would train again."
        ) from error


def _tombstone(entry: dict[str, Any]) -> Tombstone:
    return Tombstone(**{**entry, "images": tuple(entry["images"]), "fields": tuple(entry["fields"])})


def write_tombstones(vault: Path, tombstones: Iterable[Tombstone]) -> None:
    """Replace the list of erased patients."""
    write_json(vault / FILE, [asdict(stone) for stone in sorted(tombstones, key=lambda stone: stone.patient)])


def hold_back(cases: Sequence[Case], *, tombstones: Sequence[Tombstone], modalities: Collection[str]) -> list[Case]:
    """The cases as a step may see them, erased ones replaced by their tombstones, in the order of patients."""
    erased = {stone.patient: stone.case() for stone in tombstones}
    shown = [_limited(case, modalities) for case in cases if case.patient not in erased]
    return sorted([*shown, *erased.values()], key=lambda case: case.patient)


def _limited(case: Case, modalities: Collection[str]) -> Case:
    """EHR stands for the clinical record, be it read as text or as numbers, and for a report that came as text."""
    images = {name: path for name, path in case.images.items() if name in modalities}
    record, report = (case.record, case.report) if EHR in modalities else ({}, None)
    return replace(case, images=images, record=record, report=report)
