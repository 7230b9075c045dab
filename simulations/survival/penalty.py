"""The ridge penalty of a survival arm, chosen by inner folds of its own training patients."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from common.exact.columns import Layout, LinearModel
from common.exact.fit import fit_newton
from common.exact.objectives import LOSS, Cox
from simulations.survival.cohort import INNER_FOLDS, Learning, Tables


def best_penalty(train: Tables, layout: Layout, learning: Learning) -> float:
    """The penalty with the highest cross-validated partial likelihood within these rows; the largest of equals."""
    penalties = sorted(learning.penalties, reverse=True)
    if len(penalties) == 1:
        return penalties[0]
    totals = [sum(_unseen_likelihood(seen, train, layout, penalty) for seen in _inner(train)) for penalty in penalties]
    return penalties[int(np.argmax(totals))]


def _inner(train: Tables) -> Iterator[Tables]:
    """The training rows without each inner fold in turn; folds are dealt by center and event, in order."""
    for fold in range(INNER_FOLDS):
        seen = {c: rows.take(_dealt(rows.target[:, 1]) != fold) for c, rows in train.items()}
        yield {c: rows for c, rows in seen.items() if len(rows)}


def _dealt(event: np.ndarray) -> np.ndarray:
    fold = np.zeros(len(event), dtype=int)
    for happened in (True, False):
        chosen = np.flatnonzero((event > 0) == happened)
        fold[chosen] = np.arange(len(chosen)) % INNER_FOLDS
    return fold


def _unseen_likelihood(seen: Tables, train: Tables, layout: Layout, penalty: float) -> float:
    """Log partial likelihood of all rows minus that of the rows that the model saw."""
    if not any((rows.target[:, 1] > 0).any() for rows in seen.values()):
        return 0.0
    model = fit_newton(Cox(), layout, list(seen.values()), penalty=penalty)
    return _log_likelihood(model, seen) * -1 + _log_likelihood(model, train)


def _log_likelihood(model: LinearModel, centers: Tables) -> float:
    one = np.ones((1, 1))
    return -sum(float(Cox().sums(model.output(rows), rows.target, one)[LOSS][0]) for rows in centers.values())
