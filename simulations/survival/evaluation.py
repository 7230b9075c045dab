"""Concordance within centers over repeated folds, with a bootstrap over patients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from client.data.splits import split_cases
from common.config.run import Split
from common.exact.columns import LinearModel, Rows
from simulations.survival.arms import Arm, _has_event
from simulations.survival.cohort import Cohort, Fold, Learning, Tables, Task
from simulations.survival.penalty import best_penalty


@dataclass
class Pairs:
    """Comparable and concordant pairs (n, n) of one center's patients, added over folds and repeats."""

    comparable: np.ndarray
    concordant: np.ndarray


def concordant(time: np.ndarray, event: np.ndarray, risk: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Comparable (n, n) and concordant pairs under HECKTOR's rules (`common.metrics`); equal risks count one half."""
    first = (time[:, None] < time[None, :]) | ((time[:, None] == time[None, :]) & ~(event > 0)[None, :])
    comparable = (first & (event > 0)[:, None]).astype(float)
    won = (risk[:, None] > risk[None, :]) + 0.5 * (risk[:, None] == risk[None, :])
    return comparable, comparable * won


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
    comparable, won = concordant(rows.target[:, 0], rows.target[:, 1], risk)
    together = np.ones_like(comparable) if across_folds else (fold[:, None] == fold[None, :]).astype(float)
    pairs.comparable += comparable * together
    pairs.concordant += won * together


@dataclass
class Estimate:
    """A value with its percentile interval; None where no pair is comparable."""

    value: float | None
    low: float | None
    high: float | None


POOLED = "pooled within centers"


class Bootstrap:
    """C-indices and their differences under the same resampled patients, drawn within centers.

    The models stay: an interval says how much the test patients' draw matters, not the training patients'.
    """

    def __init__(self, cohort: Cohort, *, draws: int, seed: int, level: float = 0.95):
        generator = np.random.default_rng(seed)
        self.level = level
        self.weights = {  # (draws + 1, n): how often each patient is drawn; the first row is the sample itself
            c: np.concatenate([np.ones((1, n)), generator.multinomial(n, np.full(n, 1 / n), size=draws).astype(float)])
            for c, n in ((c, len(cohort.rows[c])) for c in cohort.centers)
        }

    def index(self, pairs: Mapping[str, Pairs]) -> dict[str, np.ndarray]:
        """C-index (draws + 1,) per center and pooled over the pairs within centers; NaN without a pair."""
        won = {c: _weighted(self.weights[c], p.concordant) for c, p in pairs.items()}
        all_ = {c: _weighted(self.weights[c], p.comparable) for c, p in pairs.items()}
        for table in (won, all_):
            table[POOLED] = np.sum(list(table.values()), axis=0)
        return {c: np.divide(won[c], all_[c], out=np.full_like(won[c], np.nan), where=all_[c] > 0) for c in won}

    def estimate(self, drawn: np.ndarray) -> Estimate:
        """The sample's own value and the interval of the draws that have one."""
        defined = drawn[1:][np.isfinite(drawn[1:])]
        if not np.isfinite(drawn[0]) or not len(defined):
            return Estimate(None, None, None)
        low, high = np.quantile(defined, [(1 - self.level) / 2, (1 + self.level) / 2])
        return Estimate(float(drawn[0]), float(low), float(high))


def _weighted(weights: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    return ((weights @ pairs) * weights).sum(axis=1)
