"""Lower bounds of epsilon from one run: how well an attacker told canaries that took part from those that did not.

Both hold with a given confidence, whatever the mechanism claims. The first is Steinke, Nasr and Jagielski 2023
(arXiv 2305.08846), for guesses about independent coins; it needs no assumption, and m canaries can show no more than
about log(m / 3). The second takes an attacker's scores to be normal, as sums of Gaussian noise are (Andrew et al. 2023,
arXiv 2302.03098): how far apart both groups lie is that of a Gaussian mechanism, whose epsilon is known in closed form
(Dong, Roth and Su 2019, arXiv 1905.02383).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy.stats import binom, norm

CONFIDENCE = 0.975  # of each bound, so that the larger of both holds with 95 %
LARGEST = 1000.0


def counted_bound(scores: np.ndarray, took_part: np.ndarray, delta: float, *, confidence: float = CONFIDENCE) -> float:
    """Epsilon at least, from guesses alone; the best of several numbers of guesses would need a correction, so one
    number is fixed: a third of the canaries as in, a third as out.

    Args:
        scores: (m,), larger where the attacker believes that a canary took part.
        took_part: bool (m,), fair coins.
    """
    count = len(scores)
    each = max(count // 3, 1)
    order = np.argsort(-scores, kind="stable")
    right = int(took_part[order[:each]].sum() + (~took_part[order[-each:]]).sum())
    return _largest(lambda epsilon: _chance(count, 2 * each, right, epsilon, delta) < 1 - confidence)


def _chance(count: int, guesses: int, right: int, epsilon: float, delta: float) -> float:
    """How likely so many right guesses are at most under (epsilon, delta): theorem 5.2 with the authors' own sum."""
    chance = 1 / (1 + math.exp(-epsilon))
    tail = float(binom.sf(right - 1, guesses, chance))
    sums = np.cumsum(binom.pmf(right - np.arange(1, right + 1), guesses, chance))
    slope = float(np.max(sums / np.arange(1, right + 1), initial=0.0))
    return min(tail + 2 * slope * delta * count, 1.0)


def normal_bound(scores: np.ndarray, took_part: np.ndarray, delta: float, *, confidence: float = CONFIDENCE) -> float:
    """Epsilon at least, of scores that are normal in both groups."""
    inside, outside = scores[took_part], scores[~took_part]
    spread = math.sqrt((inside.var(ddof=1) + outside.var(ddof=1)) / 2)
    if spread <= 0:
        return LARGEST
    apart = float(inside.mean() - outside.mean()) / spread
    # of Cohen's d (Hedges and Olkin 1985): the means', and that the spread is estimated, too
    error = math.sqrt(1 / len(inside) + 1 / len(outside) + apart**2 / (2 * len(scores)))
    return gaussian_epsilon(max(apart - float(norm.ppf(confidence)) * error, 0.0), delta)


def gaussian_epsilon(apart: float, delta: float) -> float:
    """Epsilon at delta of two unit normals that lie this far apart."""

    def is_more(epsilon: float) -> bool:
        tail = math.exp(min(epsilon + float(norm.logcdf(-epsilon / apart - apart / 2)), 0.0))
        return float(norm.cdf(apart / 2 - epsilon / apart)) - tail > delta

    return _largest(is_more) if apart > 0 else 0.0


def _largest(holds: Callable[[float], bool]) -> float:
    """The largest epsilon at which something holds that holds below it, too; 0 where it never does."""
    low, high = 0.0, 1.0
    if not holds(low):
        return 0.0
    while holds(high) and high < LARGEST:
        low, high = high, 2 * high
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
