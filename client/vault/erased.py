"""What this hospital holds back from every step: modalities it does not share, and patients it has erased.

Of an erased patient the vault keeps a keyed hash of the ID in the cohort's file, and the place in the split: it shows
that a case which turns up again must not be seen, and that nobody else moves. It keeps nothing else.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from client.data.case import Case
from client.vault.cohort import Cohort
from common.data.batch import EHR


def hold_back(cases: Sequence[Case], *, cohort: Cohort, modalities: Collection[str]) -> list[Case]:
    """The cases as a step may see them, without erased ones, in the order of patients."""
    shown = [_limited(case, modalities) for case in cases if not cohort.is_erased(case.patient)]
    return sorted(shown, key=lambda case: case.patient)


def _limited(case: Case, modalities: Collection[str]) -> Case:
    """EHR stands for the clinical record, be it read as text or as numbers, and for a report that came as text."""
    images = {name: path for name, path in case.images.items() if name in modalities}
    record, report = (case.record, case.report) if EHR in modalities else ({}, None)
    return replace(case, images=images, record=record, report=report)
