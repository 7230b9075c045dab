"""Paired: two models on the same patients; the difference of their scores with an interval, from sums that add up.

A patient i has a score of each model, a_i and b_i, and a weight w_i: 1 where a metric is a mean over patients, the
number of pairs that the patient is part of where it is a share of pairs (concordance). With d_i = b_i - a_i the metrics
differ by D = sum d / sum w, and the jackknife's variance of D needs sums, squares and cross sums alone. Areas under the
ROC curve are compared as DeLong et al. (Biometrics 1988) do, from the placements of each patient among those of the
other outcome, made where the scores are: nothing is put in bins, and equal scores count one half.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri, stdtrit  # quantiles of scipy.stats, whose import takes half a second

FEWEST = 5  # patients, or of an outcome, of whom an interval is told
MEAN, PAIRS = 1, 2  # how many patients make one term of a metric


@dataclass(frozen=True)
class PairedSums:
    """Sums over patients of whom both models have a score.

    Args:
        n: patients with a weight.
        a, b, w: sums of scores and of weights.
        dd, dw, ww: of squared differences, of differences times weights, of squared weights.
    """

    n: float
    a: float
    b: float
    w: float
    dd: float
    dw: float
    ww: float


@dataclass(frozen=True)
class RocSums:
    """Placements of patients: of a positive, the share of negatives below it; of a negative, of positives above it.

    Args:
        positives, negatives: how many there are.
        a, b: sums of the positives' placements by each model: the area times their number.
        positives_dd, negatives_dd: sums of squared differences of placements.
    """

    positives: float
    negatives: float
    a: float
    b: float
    positives_dd: float
    negatives_dd: float


@dataclass(frozen=True)
class Difference:
    """Model b's metric minus model a's.

    Args:
        variance: of the difference; None where too few patients say what it is.
        low, high: the 95 % interval; None without a variance.
        n: patients.
    """

    a: float
    b: float
    value: float
    variance: float | None
    low: float | None
    high: float | None
    n: int

    @property
    def is_shown(self) -> bool:
        """Whether the interval lies on one side of no difference."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


def paired_sums(a: np.ndarray, b: np.ndarray, weight: np.ndarray) -> PairedSums:
    """The sums over patients, (n,) each; who has a weight of 0 has no part in them."""
    counted = weight > 0
    a, b, w = (np.asarray(values, np.float64)[counted] for values in (a, b, weight))
    d = b - a
    return PairedSums(float(len(w)), *(float(x) for x in (a.sum(), b.sum(), w.sum(), d @ d, d @ w, w @ w)))


def paired_difference(sums: PairedSums, *, order: int = MEAN) -> Difference | None:
    """The difference of a metric that is sum score / sum weight; None where nobody has a score.

    With weights of 1 the variance is the delete-one jackknife's exactly: s^2 / n. Else it is the infinitesimal
    jackknife's of the ratio, times n / (n - 1), as of `common.metrics.concordance.concordance_interval`. The interval
    is Student's with n - 1 degrees of freedom, from five patients on.

    Args:
        order: `PAIRS` where each term of the metric is counted at both patients that make it.
    """
    if sums.w <= 0:
        return None
    a, b, n = sums.a / sums.w, sums.b / sums.w, sums.n
    value = b - a
    if n < FEWEST:
        return Difference(a, b, value, None, None, None, round(n))
    spread = max(0.0, sums.dd - 2 * value * sums.dw + value**2 * sums.ww)
    variance = order**2 * n / (n - 1) * spread / sums.w**2
    half = float(stdtrit(n - 1, 0.975)) * math.sqrt(variance)
    return Difference(a, b, value, variance, value - half, value + half, round(n))


def roc_sums(a: np.ndarray, b: np.ndarray, truth: np.ndarray) -> RocSums:
    """The sums of two models' scores (n,) of the same patients, of whom bool (n,) is true."""
    truth = np.asarray(truth, bool)
    if not truth.any() or truth.all():
        return RocSums(float(truth.sum()), float((~truth).sum()), 0.0, 0.0, 0.0, 0.0)
    (pos_a, neg_a), (pos_b, neg_b) = (placements(scores, truth) for scores in (a, b))
    squares = (((y - x) ** 2).sum() for x, y in ((pos_a, pos_b), (neg_a, neg_b)))
    return RocSums(float(len(pos_a)), float(len(neg_a)), float(pos_a.sum()), float(pos_b.sum()), *map(float, squares))


def placements(scores: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each positive the share of negatives below it, of each negative that of positives above it; ties one half.

    By midranks (Sun and Xu, IEEE Signal Processing Letters 2014), which compares each score once with all others.
    """
    scores = np.asarray(scores, np.float64)
    ranks = midranks(scores)
    positives, negatives = scores[truth], scores[~truth]
    of_positives = (ranks[truth] - midranks(positives)) / len(negatives)
    of_negatives = 1 - (ranks[~truth] - midranks(negatives)) / len(positives)
    return of_positives, of_negatives


def midranks(values: np.ndarray) -> np.ndarray:
    """Ranks (n,) from 1, equal values sharing the mean of theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (counts.cumsum() - (counts - 1) / 2)[place]


def roc_difference(sums: RocSums) -> Difference | None:
    """The difference of two areas with DeLong's variance; None where an outcome has nobody.

    The interval is the normal one, from five of each outcome on. It is clipped to [-1, 1].
    """
    m, n = sums.positives, sums.negatives
    if m <= 0 or n <= 0:
        return None
    a, b = sums.a / m, sums.b / m
    value, patients = b - a, round(m + n)
    if min(m, n) < FEWEST:
        return Difference(a, b, value, None, None, None, patients)
    spreads = ((sums.positives_dd, m), (sums.negatives_dd, n))
    variance = sum(max(0.0, dd - count * value**2) / (count - 1) / count for dd, count in spreads)
    return _normal(a, b, variance, patients)


def stratified(each: Sequence[Difference], pairs: Sequence[float]) -> Difference | None:
    """Areas of several centers as one: pairs of patients of one center only, each as much as another; None of none.

    Args:
        pairs: positives times negatives of each center.
    """
    total = float(sum(pairs))
    if total <= 0:
        return None
    shares = [count / total for count in pairs]
    a, b = (sum(s * getattr(one, side) for s, one in zip(shares, each, strict=True)) for side in ("a", "b"))
    n = sum(one.n for one in each)
    variances = [one.variance for one in each]
    if any(variance is None for variance in variances):
        return Difference(a, b, b - a, None, None, None, n)
    return _normal(a, b, sum(s**2 * (v or 0.0) for s, v in zip(shares, variances, strict=True)), n)


def _normal(a: float, b: float, variance: float, n: int) -> Difference:
    half = float(ndtri(0.975)) * math.sqrt(variance)
    return Difference(a, b, b - a, variance, max(-1.0, b - a - half), min(1.0, b - a + half), n)
