"""What was predicted for every patient by a model that never saw them: risk, risk group and survival at one time.

Nothing here looks at a test patient's outcome: the line between low and high risk is the median of the training
patients' risks, and the baseline hazard is Breslow's over the training patients. Both are taken over all centers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from common.exact.columns import pooled
from common.metrics import breslow, breslow_counts
from simulations.survival.cohort import Cohort, Fold
from simulations.survival.evaluation import risk_of


@dataclass
class OutOfFold:
    """Patients of all centers, one after the other; every field is (n,)."""

    time: np.ndarray  # days
    event: np.ndarray
    risk: np.ndarray
    high: np.ndarray  # whether above the median risk of the fold's training patients
    survival: np.ndarray  # predicted share without the event at the horizon

    def __len__(self) -> int:
        return len(self.time)


def out_of_fold(cohort: Cohort, folds: Sequence[Fold], arm: str, *, horizon: float) -> OutOfFold:
    """One arm's predictions over the folds of one repeat, so that every patient counts once.

    Args:
        horizon: days.
    """
    found = {c: np.zeros((len(cohort.rows[c]), 3)) for c in cohort.centers}
    for fold in folds:
        models, train = fold.models[arm], fold.task.train
        learned = np.concatenate([risk_of(models[c], rows) for c, rows in train.items()])
        time, event = pooled(list(train.values())).target.T
        hazard = baseline_hazard(time, event, learned, until=horizon)
        for center, test in fold.test.items():
            risk = risk_of(models[center], cohort.rows[center].take(test))
            found[center][test] = np.stack([risk, risk > np.median(learned), np.exp(-hazard * np.exp(risk))], axis=1)
    tested = {c: np.unique(np.concatenate([fold.test[c] for fold in folds])) for c in cohort.centers}
    time, event = pooled([cohort.rows[c].take(tested[c]) for c in cohort.centers]).target.T
    risk, high, survival = np.concatenate([found[c][tested[c]] for c in cohort.centers]).T
    return OutOfFold(time, event, risk, high > 0, survival)


def baseline_hazard(time: np.ndarray, event: np.ndarray, risk: np.ndarray, *, until: float) -> float:
    """Breslow's cumulative baseline hazard at a time, on the patients' own times as the grid."""
    moments, index = np.unique(time, return_inverse=True)
    hazard = breslow(*breslow_counts(index, event, risk, bins=len(moments)))
    reached = int(np.searchsorted(moments, until, side="right"))
    return float(hazard[reached - 1]) if reached else 0.0
