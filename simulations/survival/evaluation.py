"""Concordance within centers over repeated folds, with a bootstrap over patients."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from client.data.splits import split_cases
from common.config.run import Split
from common.exact.columns import LinearModel, Rows
from common.metrics import Pairs, Resampled, bootstrap_pairs, bootstrap_weights, pairs_of
from simulations.survival.arms import Arm, _has_event
from simulations.survival.cohort import Cohort, Fold, Learning, Tables, Task
from simulations.survival.penalty import best_penalty

POOLED = "pooled within centers"


def evaluate(
    cohort: Cohort,
    arms: Mapping[str, Arm],
    learning: Learning,
    *,
    folds: int,
    repeats: int,
    across_folds: bool = False,
    say: Callable[[str], None] = lambda line: None,
    seen: Callable[[Fold], None] = lambda fold: None,
) -> dict[str, dict[str, Pairs]]:
    """Arm -> center -> pairs over repeated cross-validation, every arm on the same folds.

    Args:
        across_folds: also compare patients of different test folds of one repeat, whose risks come from different
            models; for centers with fewer patients than it takes to have pairs within a fold.
        seen: gets every fold with its models, for whoever wants more than pairs of them.
    """
    found = {arm: {c: _no_pairs(len(cohort.rows[c])) for c in cohort.centers} for arm in arms}
    for repeat in range(repeats):
        risks = {arm: {c: np.zeros(len(cohort.rows[c])) for c in cohort.centers} for arm in arms}
        fold_of = {c: np.zeros(len(cohort.rows[c]), dtype=int) for c in cohort.centers}
        for fold in range(folds):
            test = positions_in_test(cohort, Split(seed=repeat, folds=folds, fold=fold, validation=0.0))
            train = {c: np.setdiff1d(np.arange(len(cohort.rows[c])), test[c]) for c in cohort.centers}
            for center in cohort.centers:
                fold_of[center][test[center]] = fold
            task = task_of(cohort.take(train), cohort, learning)
            models = {arm: learn(task) for arm, learn in arms.items()}
            for arm in arms:
                for center in cohort.centers:
                    tested = cohort.rows[center].take(test[center])
                    risks[arm][center][test[center]] = risk_of(models[arm][center], tested)
            seen(Fold(repeat, test, task, models))
        for arm in arms:
            for center in cohort.centers:
                _count(found[arm][center], cohort.rows[center], risks[arm][center], fold_of[center], across_folds)
        say(f"repeat {repeat + 1} of {repeats}")
    return found


def task_of(train: Tables, cohort: Cohort, learning: Learning) -> Task:
    """A training task with its penalty chosen."""
    penalty = best_penalty(train, cohort.layout, learning) if _has_event(train) else learning.penalties[0]
    return Task(cohort.centers, train, cohort.layout, learning, penalty)


def positions_in_test(cohort: Cohort, split: Split) -> dict[str, np.ndarray]:
    """Positions of a fold's test patients, by center."""
    chosen = {
        c: {case.patient for case in split_cases(cases, split=split)["test"]} for c, cases in cohort.cases.items()
    }
    return {
        c: np.array([i for i, case in enumerate(cohort.cases[c]) if case.patient in chosen[c]], dtype=int)
        for c in cohort.centers
    }


def risk_of(model: LinearModel | None, rows: Rows) -> np.ndarray:
    """Log risk (n,); zeros where nothing could be learned."""
    return np.zeros(len(rows)) if model is None else model.output(rows)[:, 0]


def _no_pairs(size: int) -> Pairs:
    return Pairs(np.zeros((size, size)), np.zeros((size, size)))


def _count(pairs: Pairs, rows: Rows, risk: np.ndarray, fold: np.ndarray, across_folds: bool) -> None:
    found = pairs_of(rows.target[:, 0], rows.target[:, 1], risk)
    together = np.ones_like(found.comparable) if across_folds else (fold[:, None] == fold[None, :]).astype(float)
    pairs.comparable += found.comparable * together
    pairs.concordant += found.concordant * together


def center_weights(cohort: Cohort, *, draws: int, seed: int) -> dict[str, np.ndarray]:
    """Center -> how often each of its patients is drawn (draws, n); the same for all arms, so that differences pair."""
    strata = [center for center in cohort.centers for _ in range(len(cohort.rows[center]))]
    weights, ends = bootstrap_weights(strata, draws=draws, seed=seed), np.cumsum(cohort.sizes)[:-1]
    return dict(zip(cohort.centers, np.split(weights, ends, axis=1), strict=True))


def indices(pairs: Mapping[str, Pairs], weights: Mapping[str, np.ndarray]) -> dict[str, Resampled]:
    """C-index per center, and pooled over the pairs within centers, of the sample and of every draw.

    The models stay: an interval says how much the test patients' draw matters, not the training patients'.
    """
    draws = len(next(iter(weights.values())))
    found = {c: bootstrap_pairs([(p, weights[c])], draws=draws) for c, p in pairs.items()}
    return found | {POOLED: bootstrap_pairs([(p, weights[c]) for c, p in pairs.items()], draws=draws)}
