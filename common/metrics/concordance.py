"""Concordance: in how many pairs of patients the one who relapses earlier was given the higher risk.

Pairs are formed within the arrays given, so within one center; counts of centers add up to the within-center index.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from common.metrics.overlap import ratio

NORMAL_95 = 1.959963984540054


class HarrellCounts(NamedTuple):
    """Pairs of cases in which the order of the times is known."""

    concordant: float  # the earlier event has the higher risk
    tied: float  # equal risks, or a risk that is NaN
    comparable: float


class PairSpread(NamedTuple):
    """Sums over patients of products of their own pair counts: what the variance of a concordance index needs.

    With c_i the concordant (ties half) and n_i the comparable pairs that patient i is part of, these are
    sum c_i^2, sum c_i n_i and sum n_i^2.
    """

    cc: float
    cn: float
    nn: float


def ranked_pairs(time: np.ndarray, event: np.ndarray, risk: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """bool (n, n) matrices (concordant, tied, comparable) of Harrell's pairs under HECKTOR's rules; row i is earlier.

    A pair is comparable when the earlier time is an event; equal times only when exactly one of them is an event, which
    then counts as the earlier. A missing risk (NaN) ties with every other.

    Args:
        time, event, risk: (n,); event is 0 or 1, a higher risk means an earlier event.
    """
    risk = np.asarray(risk, np.float64)
    return _ranked(comparable_pairs(time, event), risk[:, None], risk[None, :])


def comparable_pairs(time: np.ndarray, event: np.ndarray) -> np.ndarray:
    """bool (n, n): i relapses, and j is known to be free of relapse for longer."""
    time, happened = np.asarray(time, np.float64), np.asarray(event, np.float64) > 0
    first = time[:, None] < time[None, :]
    first |= (time[:, None] == time[None, :]) & ~happened[None, :]
    return first & happened[:, None]


def harrell_counts(time: np.ndarray, event: np.ndarray, risk: np.ndarray) -> HarrellCounts:
    """Harrell's pairs under HECKTOR's rules (its copy of lifelines' routine), see `ranked_pairs`."""
    return _counted(*ranked_pairs(time, event, risk))


def antolini_counts(time: np.ndarray, event: np.ndarray, survival_at: np.ndarray) -> HarrellCounts:
    """Antolini's time-dependent pairs: at i's relapse, i has the lower predicted survival (Antolini et al. 2005).

    Args:
        survival_at: (n, n), S_j(t_i) in row i and column j; equal values tie, and so does NaN.
    """
    survival_at = np.asarray(survival_at, np.float64)
    own = np.diagonal(survival_at)[:, None]
    return _counted(*_ranked(comparable_pairs(time, event), -own, -survival_at))


def uno_sums(time: np.ndarray, event: np.ndarray, risk: np.ndarray, *, weight: np.ndarray) -> HarrellCounts:
    """Harrell's pairs weighted by the earlier case (Uno et al. 2011).

    Args:
        weight: (n,), 1 / G(t_i)^2 of the censoring distribution, 0 beyond the horizon. G at t_i itself is
            scikit-survival's convention (`common.metrics.survival` says what it costs where times tie).
    """
    heavy = np.asarray(weight, np.float64)[:, None]
    return _counted(*(pairs * heavy for pairs in ranked_pairs(time, event, risk)))


def concordance_index(concordant: float, tied: float, comparable: float) -> float | None:
    """(concordant + tied / 2) / comparable."""
    return ratio(concordant + tied / 2, comparable)


def own_pairs(time: np.ndarray, event: np.ndarray, risk: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n,) each: the pairs that a patient is part of and the risk orders rightly, ties one half, and all of them."""
    concordant, tied, comparable = ranked_pairs(time, event, risk)
    won = concordant + tied / 2
    c, n = (pairs.sum(axis=0) + pairs.sum(axis=1) for pairs in (won, comparable.astype(np.float64)))
    return c, n


def pair_spread(time: np.ndarray, event: np.ndarray, risk: np.ndarray) -> PairSpread:
    """The sums that `concordance_interval` needs, over the patients of one center."""
    c, n = own_pairs(time, event, risk)
    return PairSpread(float(c @ c), float(c @ n), float(n @ n))


def concordance_interval(
    counts: tuple[float, float, float], spread: tuple[float, float, float]
) -> tuple[float, float] | None:
    """95 % interval of a concordance index from added counts alone: no patient's own value is needed.

    The infinitesimal jackknife of the ratio: var C = sum_i (c_i - C n_i)^2 / comparable^2, on the logit scale so that
    the interval stays within (0, 1). None where it is not defined (no pair, or every pair alike).
    """
    comparable, index = counts[2], concordance_index(*counts)
    if index is None or not 0 < index < 1:
        return None
    cc, cn, nn = spread
    variance = max(0.0, cc - 2 * index * cn + index**2 * nn) / comparable**2
    return logit_interval(index, variance)


def logit_interval(value: float, variance: float) -> tuple[float, float] | None:
    """95 % normal interval of a share on the logit scale; None at 0, at 1 and without a variance."""
    if variance <= 0 or not 0 < value < 1:
        return None
    centre, half = math.log(value / (1 - value)), NORMAL_95 * math.sqrt(variance) / (value * (1 - value))
    low, high = (1 / (1 + math.exp(-min(max(x, -700.0), 700.0))) for x in (centre - half, centre + half))
    return low, high


def _ranked(comparable: np.ndarray, mine: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    missing = np.isnan(mine) | np.isnan(other)
    tied = comparable & (missing | (mine == other))
    return comparable & (mine > other), tied, comparable


def _counted(concordant: np.ndarray, tied: np.ndarray, comparable: np.ndarray) -> HarrellCounts:
    return HarrellCounts(float(concordant.sum()), float(tied.sum()), float(comparable.sum()))
