"""Resampling: percentile intervals from patients drawn anew, within their centers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from common.metrics.concordance import ranked_pairs


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


def percentile_interval(drawn: np.ndarray, *, level: float = 0.95) -> tuple[float | None, float | None]:
    """The percentile interval of resampled values (draws,); those that are not defined (NaN) are left out."""
    defined = drawn[np.isfinite(drawn)]
    if not len(defined):
        return None, None
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def bootstrap_additive(
    sums: Mapping[str, np.ndarray], metric: Callable[[dict[str, np.ndarray]], float | None], *, weights: np.ndarray
) -> tuple[float | None, np.ndarray]:
    """A metric of sums over patients, and its value in every draw (NaN where it is not defined).

    Args:
        sums: name -> (n, ...), every patient's share of each sum; a draw's sums are these times its weights.
        metric: of a name -> (...) dictionary of sums.
        weights: (draws, n) from `bootstrap_weights`; the same for every arm makes differences paired.
    """
    every = np.concatenate([np.ones((1, weights.shape[1])), weights])
    drawn = {name: np.tensordot(every, np.asarray(values, np.float64), axes=(1, 0)) for name, values in sums.items()}
    values = [metric({name: total[row] for name, total in drawn.items()}) for row in range(len(every))]
    found = np.array([np.nan if value is None else value for value in values], np.float64)
    return values[0], found[1:]


def _groups(labels: Sequence[object]) -> list[np.ndarray]:
    rows: dict[object, list[int]] = {}
    for row, label in enumerate(labels):
        rows.setdefault(label, []).append(row)
    return [np.array(group) for group in rows.values()]


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
