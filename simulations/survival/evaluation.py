"""Concordance within centers over repeated folds, with a bootstrap over patients."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from client.data.splits import split_cases
from common.config.run import Split
from common.exact.columns import LinearModel, Rows, pooled
from common.metrics import Pairs, Resampled, bootstrap_pairs, bootstrap_weights, pairs_of
from simulations.survival.arms import Arm, _has_event
from simulations.survival.cohort import Cohort, Fold, Learning, Tables, Task
from simulations.survival.penalty import best_penalty

POOLED, ALL_PAIRS = "pooled within centers", "all pairs"
UNTESTED = -1  # the fold of who tests in none


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
    fixed: Mapping[str, np.ndarray] | None = None,
    all_pairs: bool = False,
) -> dict[str, dict[str, Pairs]]:
    """Arm -> center -> pairs over repeated cross-validation, every arm on the same folds.

    Args:
        across_folds: also compare patients of different test folds of one repeat, whose risks come from different
            models; for centers with fewer patients than it takes to have pairs within a fold.
        seen: gets every fold with its models, for whoever wants more than pairs of them.
        fixed: positions of those who test, by center, once and in the place of folds; pairs are of these alone.
        all_pairs: also `ALL_PAIRS`, of patients of all centers, those of single ones after the other.
    """
    found = {arm: {c: _no_pairs(len(cohort.rows[c])) for c in cohort.centers} for arm in arms}
    together = {arm: _no_pairs(sum(cohort.sizes)) for arm in arms} if all_pairs else {}
    folds, repeats = (folds, repeats) if fixed is None else (1, 1)
    for repeat in range(repeats):
        risks = {arm: {c: np.zeros(len(cohort.rows[c])) for c in cohort.centers} for arm in arms}
        fold_of = {c: np.full(len(cohort.rows[c]), UNTESTED) for c in cohort.centers}
        for fold in range(folds):
            test = dict(fixed) if fixed is not None else _in_fold(cohort, repeat, folds, fold)
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
            if all_pairs:
                risk, place = (np.concatenate([by[c] for c in cohort.centers]) for by in (risks[arm], fold_of))
                _count(together[arm], pooled([cohort.rows[c] for c in cohort.centers]), risk, place, across_folds)
        say(f"repeat {repeat + 1} of {repeats}")
    if fixed is not None:
        places = {c: np.sort(fixed[c]) for c in cohort.centers}
        found = {arm: {c: _of(pairs, places[c]) for c, pairs in by.items()} for arm, by in found.items()}
        starts = np.cumsum([0, *cohort.sizes[:-1]])
        where = np.concatenate([start + places[c] for start, c in zip(starts, cohort.centers, strict=True)])
        together = {arm: _of(pairs, where) for arm, pairs in together.items()}
    return {arm: by | ({ALL_PAIRS: together[arm]} if all_pairs else {}) for arm, by in found.items()}


def _in_fold(cohort: Cohort, repeat: int, folds: int, fold: int) -> dict[str, np.ndarray]:
    return positions_in_test(cohort, Split(seed=repeat, folds=folds, fold=fold, validation=0.0))


def _of(pairs: Pairs, places: np.ndarray) -> Pairs:
    """The pairs of some of the patients."""
    square = np.ix_(places, places)
    return Pairs(pairs.comparable[square], pairs.concordant[square])


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
    tested = fold != UNTESTED
    together = (tested[:, None] & tested[None, :]).astype(float)
    if not across_folds:
        together *= fold[:, None] == fold[None, :]
    pairs.comparable += found.comparable * together
    pairs.concordant += found.concordant * together


def center_weights(sizes: Mapping[str, int], *, draws: int, seed: int) -> dict[str, np.ndarray]:
    """Center -> how often each of its patients is drawn (draws, n); the same for all arms, so that differences pair.

    Args:
        sizes: patients that test, by center, in the order of their codes.
    """
    strata = [center for center, size in sizes.items() for _ in range(size)]
    weights, ends = bootstrap_weights(strata, draws=draws, seed=seed), np.cumsum([*sizes.values()])[:-1]
    return dict(zip(sizes, np.split(weights, ends, axis=1), strict=True))


def indices(pairs: Mapping[str, Pairs], weights: Mapping[str, np.ndarray]) -> dict[str, Resampled]:
    """C-index per center, and pooled over the pairs within centers, of the sample and of every draw.

    The models stay: an interval says how much the test patients' draw matters, not the training patients'.
    """
    draws = len(next(iter(weights.values())))
    own = {c: p for c, p in pairs.items() if c != ALL_PAIRS}
    found = {c: bootstrap_pairs([(p, weights[c])], draws=draws) for c, p in own.items()}
    if ALL_PAIRS in pairs:
        every = np.concatenate([weights[c] for c in own], axis=1)
        found[ALL_PAIRS] = bootstrap_pairs([(pairs[ALL_PAIRS], every)], draws=draws)
    return found | {POOLED: bootstrap_pairs([(p, weights[c]) for c, p in own.items()], draws=draws)}
