"""Resampling: a statistic's value when patients are drawn anew, within their centers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from common.metrics.concordance import ranked_pairs
from common.metrics.estimate import Resampled


@dataclass
class Pairs:
    """Comparable and concordant pairs (n, n) of one group's patients, ties counting one half; sums of several rankings
    of the same patients are pairs too."""

    comparable: np.ndarray
    concordant: np.ndarray


def pairs_of(time: np.ndarray, event: np.ndarray, risk: np.ndarray) -> Pairs:
    """The pairs of one ranking under HECKTOR's rules (`common.metrics.concordance.ranked_pairs`)."""
    concordant, tied, comparable = ranked_pairs(time, event, risk)
    return Pairs(comparable.astype(np.float64), concordant + tied / 2)


def bootstrap_weights(strata: Sequence[object], *, draws: int, seed: int = 0) -> np.ndarray:
    """How often each patient is drawn, int (draws, n): as many as there are of each stratum, with replacement."""
    generator = np.random.default_rng(seed)
    weights = np.zeros((draws, len(strata)), np.int64)
    for group in _groups(strata):
        weights[:, group] = generator.multinomial(len(group), np.full(len(group), 1 / len(group)), size=draws)
    return weights


def bootstrap_additive(
    sums: Mapping[str, np.ndarray], metric: Callable[[dict[str, np.ndarray]], float | None], *, weights: np.ndarray
) -> Resampled:
    """A metric of sums over patients.

    Args:
        sums: name -> (n, ...), every patient's share of each sum; a draw's sums are these times its weights.
        metric: of a name -> (...) dictionary of sums.
        weights: (draws, n) from `bootstrap_weights`; the same for every arm makes differences paired.
    """
    every = np.concatenate([np.ones((1, weights.shape[1])), weights])
    drawn = {name: np.tensordot(every, np.asarray(values, np.float64), axes=(1, 0)) for name, values in sums.items()}
    values = [metric({name: total[row] for name, total in drawn.items()}) for row in range(len(every))]
    found = np.array([np.nan if value is None else value for value in values], np.float64)
    return Resampled(values[0], found[1:])


def bootstrap_median(values: np.ndarray, counted: np.ndarray, *, weights: np.ndarray) -> Resampled:
    """The median over the patients that count; of an even number the upper of the two in the middle, so that no worst
    value is averaged away.

    Args:
        values: (n,), one value a patient.
        counted: bool (n,), whose value is defined; the others are no part of any draw.
        weights: (draws, n) from `bootstrap_weights`; the same for every arm makes differences paired.
    """
    mine = np.flatnonzero(counted)
    mine = mine[np.argsort(values[mine], kind="stable")]
    if not len(mine):
        return Resampled(None, np.full(len(weights), np.nan))
    every = np.concatenate([np.ones((1, len(mine)), np.int64), weights[:, mine]])
    reached = np.cumsum(every, axis=1)
    place = (2 * reached <= reached[:, -1:]).sum(axis=1)  # of a draw of nobody: behind the last
    found = np.append(np.asarray(values, np.float64)[mine], np.nan)[place]
    return Resampled(float(found[0]), found[1:])


def bootstrap_concordance(
    time: np.ndarray, event: np.ndarray, risk: np.ndarray, *, groups: Sequence[object], weights: np.ndarray
) -> Resampled:
    """Harrell's index over pairs within groups.

    Args:
        risk: (n,) or (seeds, n); with several seeds both results are means over them.
        groups: pairs are formed within equal labels only (a center, or a center and fold).
        weights: (draws, n) from `bootstrap_weights`; the same for every arm makes differences paired.
    """
    risks = np.atleast_2d(np.asarray(risk, np.float64))

    def group_pairs(group: np.ndarray) -> Pairs:
        each = [pairs_of(time[group], event[group], one[group]) for one in risks]
        return Pairs(sum(p.comparable for p in each), sum(p.concordant for p in each))  # type: ignore[arg-type]

    return bootstrap_pairs(((group_pairs(group), weights[:, group]) for group in _groups(groups)), draws=len(weights))


def bootstrap_pairs(groups: Iterable[tuple[Pairs, np.ndarray]], *, draws: int) -> Resampled:
    """The concordance index over the pairs of several groups.

    Counts of pairs are quadratic in the weights, so that a thousand draws are two matrix products per group. Weights
    and pairs are whole or half numbers, so the counts are exact in any order.

    Args:
        groups: each group's pairs, with how often its patients are drawn (draws, n).
    """
    won, comparable = np.zeros(draws + 1), np.zeros(draws + 1)
    for pairs, weights in groups:
        every = np.concatenate([np.ones((1, weights.shape[1])), weights])
        won += ((every @ pairs.concordant) * every).sum(axis=1)
        comparable += ((every @ pairs.comparable) * every).sum(axis=1)
    index = np.divide(won, comparable, out=np.full(draws + 1, np.nan), where=comparable > 0)
    return Resampled(None if np.isnan(index[0]) else float(index[0]), index[1:])


def _groups(labels: Sequence[object]) -> list[np.ndarray]:
    rows: dict[object, list[int]] = {}
    for row, label in enumerate(labels):
        rows.setdefault(label, []).append(row)
    return [np.array(group) for group in rows.values()]
