"""Who is in the study: every patient with an outcome and a CT, and the fold that tests them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from client.center.center import Center
from client.data.case import Case
from common.config.run import Run, Split
from common.data.batch import CT

Risks = dict[tuple[str, str, str], np.ndarray]  # (input, loss, arm) -> (seeds, n)


@dataclass
class Cohort:
    """Every patient with an outcome, in the order of centers and IDs."""

    patients: list[str]
    centers: np.ndarray
    fold: np.ndarray
    time: np.ndarray
    event: np.ndarray

    @property
    def groups(self) -> list[tuple[str, int]]:
        """Pairs are formed within a center and fold: another fold's risks come from another model."""
        return list(zip(self.centers.tolist(), self.fold.tolist(), strict=True))


def cohort_of(run: Run, centers: Sequence[Center]) -> Cohort:
    """Outcomes and test folds of everyone who has an outcome."""
    rows = []
    for center in centers:
        for fold in range(run.study.folds):
            for case in part_at(run, center, fold, "test"):
                rows.append((center.code, case.patient, fold, case.days, case.event))
    codes, patients, folds, days, events = zip(*sorted(rows), strict=True)
    return Cohort(list(patients), np.array(codes), np.array(folds), np.array(days, float), np.array(events, float))


def with_outcome(case: Case) -> bool:
    """Whether a patient is in the study."""
    return case.days is not None and CT in case.images


def part_at(run: Run, center: Center, fold: int, name: str) -> list[Case]:
    """Patients with an outcome on one side of their center's split."""
    side = center.sides(split_of(run, fold))
    return [case for case in center.cases if side[case.patient] == name and with_outcome(case)]


def split_of(run: Run, fold: int) -> Split:
    """The run's split at one of the study's folds."""
    return replace(run.data.split, folds=run.study.folds, fold=fold)
