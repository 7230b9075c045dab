"""Resampling: percentile intervals from patients drawn anew, within their centers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from common.metrics.concordance import ranked_pairs

Case = TypeVar("Case")


class Interval(NamedTuple):
    """A value with its percentile interval; None where the statistic is not defined."""

    value: float | None
    low: float | None
    high: float | None


class Difference(NamedTuple):
    """A difference with its percentile interval; None where the statistic is not defined on the whole sample."""

    difference: float | None
    low: float | None
    high: float | None


def paired_bootstrap(
    observations_a: Sequence[Case],
    observations_b: Sequence[Case],
    *,
    statistic: Callable[[list[Case]], float | None],
    strata: Sequence[object] | None = None,
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Difference:
    """statistic(a) - statistic(b) over the same patients, with a percentile interval over resampled patients.

    Args:
        observations_a, observations_b: one entry per patient, in the same order.
        statistic: of a list of observations; draws on which it is None are left out.
        strata: one label per patient (their center); patients are resampled within labels.
        level: coverage of the interval.
    """
    if len(observations_a) != len(observations_b):
        raise ValueError(f"Paired observations differ in number: {len(observations_a)} and {len(observations_b)}.")

    def difference(rows: np.ndarray | range) -> float | None:
        a, b = (statistic([side[i] for i in rows]) for side in (observations_a, observations_b))
        return None if a is None or b is None else a - b

    groups = _groups(strata if strata is not None else [0] * len(observations_a))
    generator = np.random.default_rng(seed)
    drawn = [difference(np.concatenate([generator.choice(g, len(g)) for g in groups])) for _ in range(draws)]
    defined = [value for value in drawn if value is not None]
    point = difference(range(len(observations_a)))
    if point is None or not defined:
        return Difference(point, None, None)
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Difference(point, float(low), float(high))


def _groups(labels: Sequence[object]) -> list[np.ndarray]:
    rows: dict[object, list[int]] = {}
    for row, label in enumerate(labels):
        rows.setdefault(label, []).append(row)
    return [np.array(group) for group in rows.values()]


# ------------------------------------------------------------------------------------------ concordance, resampled


def bootstrap_weights(strata: Sequence[object], *, draws: int, seed: int = 0) -> np.ndarray:
    """How often each patient is drawn, int (draws, n): as many as there are of each stratum, with replacement."""
    generator = np.random.default_rng(seed)
    weights = np.zeros((draws, len(strata)), np.int64)
    for group in _groups(strata):
        weights[:, group] = generator.multinomial(len(group), np.full(len(group), 1 / len(group)), size=draws)
    return weights


def bootstrap_concordance(
    time: np.ndarray, event: np.ndarray, risk: np.ndarray, *, groups: Sequence[object], weights: np.ndarray
) -> tuple[float | None, np.ndarray]:
    """Harrell's index over pairs within groups, and its value in every draw (NaN where a draw has no pair).

    Counts of pairs are quadratic in the weights, so that a thousand draws are two matrix products per group.

    Args:
        risk: (n,) or (seeds, n); with several seeds both results are means over them.
        groups: pairs are formed within equal labels only (a center, or a center and fold).
        weights: (draws, n) from `bootstrap_weights`; the same for every arm makes differences paired.
    """
    risks = np.atleast_2d(np.asarray(risk, np.float64))
    every = np.concatenate([np.ones((1, len(groups)), np.int64), weights]).astype(np.float64)
    won, pairs = np.zeros((len(risks), len(every))), np.zeros(len(every))
    for group in _groups(groups):
        w = every[:, group]
        for row, one in enumerate(risks):
            concordant, tied, comparable = ranked_pairs(time[group], event[group], one[group])
            won[row] += np.einsum("di,ij,dj->d", w, concordant + tied / 2, w, optimize=True)
        pairs += np.einsum("di,ij,dj->d", w, comparable.astype(np.float64), w, optimize=True)
    index = np.divide(won.mean(axis=0), pairs, out=np.full(len(every), np.nan), where=pairs > 0)
    return (None if np.isnan(index[0]) else float(index[0])), index[1:]
