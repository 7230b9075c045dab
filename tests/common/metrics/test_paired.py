"""Two models on the same patients: the jackknife's variance, and DeLong's, against their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t as student

from common.metrics.concordance import pair_spread, ranked_pairs
from common.metrics.labels import auroc_from_counts, auroc_interval, score_bins
from common.metrics.paired import (
    PAIRS,
    Difference,
    RocSums,
    paired_difference,
    paired_sums,
    placements,
    roc_difference,
    roc_sums,
    stratified,
)

DRAWN = np.random.default_rng(3)


def delong_by_definition(a: np.ndarray, b: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """DeLong et al. 1988, equations 4 to 9, as they stand there: the kernel over all pairs, sample covariances."""
    areas, tens, ones = [], [], []
    for scores in (a, b):
        x, y = scores[truth], scores[~truth]
        psi = (x[:, None] > y[None, :]) + 0.5 * (x[:, None] == y[None, :])
        areas.append(psi.mean())
        tens.append(psi.mean(axis=1))
        ones.append(psi.mean(axis=0))
    covariance = np.cov(tens) / truth.sum() + np.cov(ones) / (~truth).sum()
    contrast = np.array([-1.0, 1.0])
    return areas[1] - areas[0], float(contrast @ covariance @ contrast)


def test_delong_by_hand():
    # three positives, three negatives; a: 1 of 9 pairs is wrong, b: two more, one of them tied
    truth = np.array([1, 1, 1, 0, 0, 0], bool)
    a = np.array([0.9, 0.8, 0.4, 0.5, 0.3, 0.2])
    b = np.array([0.9, 0.3, 0.6, 0.6, 0.2, 0.1])
    sums = roc_sums(a, b, truth)
    # placements of positives by a: 1, 1, 2/3; by b: 1, 2/3, 5/6; of negatives by a: 2/3, 1, 1; by b: 1/2, 1, 1
    assert sums.a / 3 == pytest.approx(8 / 9)
    assert sums.b / 3 == pytest.approx((1 + 2 / 3 + 2.5 / 3) / 3)
    assert sums.positives_dd == pytest.approx((1 / 3) ** 2 + (1 / 6) ** 2)
    assert sums.negatives_dd == pytest.approx((1 / 6) ** 2)
    assert roc_difference(sums).value == pytest.approx(-1 / 18)
    assert roc_difference(sums).variance is None  # three of an outcome say nothing of a variance


@pytest.mark.parametrize("decimals", [0, 1, 6])
def test_delong_is_its_definition_ties_and_all(decimals):
    truth = DRAWN.random(60) < 0.4
    a = np.round(DRAWN.normal(size=60) + truth, decimals)
    b = np.round(0.7 * a + 0.5 * DRAWN.normal(size=60), decimals)
    value, variance = delong_by_definition(a, b, truth)
    found = roc_difference(roc_sums(a, b, truth))
    assert found.value == pytest.approx(value, abs=1e-12)
    assert found.variance == pytest.approx(variance, rel=1e-9)
    half = 1.959963984540054 * math.sqrt(variance)
    assert (found.low, found.high) == pytest.approx((value - half, value + half), abs=1e-9)


def test_one_model_alone_has_the_variance_of_the_interval_from_histograms():
    """Against a model that says nothing (all tied) the difference is the other's area minus one half."""
    truth = DRAWN.random(80) < 0.5
    logits = np.round(DRAWN.normal(size=80) + truth, 1)  # apart from each other by more than a bin
    found = roc_difference(roc_sums(np.zeros(80), logits, truth))
    bins = score_bins(logits)
    positives, negatives = (np.bincount(bins[own], minlength=256).astype(float) for own in (truth, ~truth))
    area = auroc_from_counts(positives, negatives)
    low, high = auroc_interval(positives, negatives)
    deviation = (math.log(high / (1 - high)) - math.log(low / (1 - low))) / 2 / 1.959963984540054 * area * (1 - area)
    assert found.value == pytest.approx(area - 0.5)
    assert math.sqrt(found.variance) == pytest.approx(deviation, rel=1e-9)


def test_what_bins_lose():
    """Histograms call two scores of one bin equal; a pair of outcomes in a bin then counts one half, no more."""
    truth = DRAWN.random(300) < 0.5
    logits = DRAWN.normal(size=300) + truth
    exact = roc_sums(logits, logits, truth).a / truth.sum()
    bins = score_bins(logits)
    positives, negatives = (np.bincount(bins[own], minlength=256).astype(float) for own in (truth, ~truth))
    most = 0.5 * (positives * negatives).sum() / (positives.sum() * negatives.sum())
    lost = abs(auroc_from_counts(positives, negatives) - exact)
    assert 0 < lost <= most < 0.01


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=2, max_size=30))
def test_placements_are_shares_of_the_other_outcome(drawn):
    scores, truth = np.array([s for s, _ in drawn], float), np.array([t for _, t in drawn])
    if truth.all() or not truth.any():
        assert roc_difference(roc_sums(scores, scores, truth)) is None
        return
    x, y = scores[truth], scores[~truth]
    psi = (x[:, None] > y[None, :]) + 0.5 * (x[:, None] == y[None, :])
    of_positives, of_negatives = placements(scores, truth)
    np.testing.assert_allclose(of_positives, psi.mean(axis=1), atol=1e-12)
    np.testing.assert_allclose(of_negatives, psi.mean(axis=0), atol=1e-12)


def test_edges_of_delong():
    truth = np.array([1, 0] * 5, bool)
    perfect, tied = truth.astype(float), np.zeros(10)
    best = roc_difference(roc_sums(tied, perfect, truth))
    assert (best.value, best.variance, best.low, best.high) == (0.5, 0.0, 0.5, 0.5)
    same = roc_difference(roc_sums(perfect, perfect, truth))
    assert (same.value, same.is_shown) == (0.0, False)
    assert stratified([], []) is None
    assert roc_difference(RocSums(0, 4, 0, 0, 0, 0)) is None


def test_areas_of_centers_are_weighed_by_their_pairs():
    each = [Difference(0.5, 0.7, 0.2, 0.01, 0, 0, 20), Difference(0.6, 0.6, 0.0, 0.04, 0, 0, 10)]
    found = stratified(each, [75.0, 25.0])
    assert (found.a, found.b, found.value) == pytest.approx((0.525, 0.675, 0.15))
    assert found.variance == pytest.approx(0.75**2 * 0.01 + 0.25**2 * 0.04)
    assert found.n == 30


def jackknife(values: np.ndarray, statistic) -> float:
    """The delete-one jackknife's variance, by deleting one after the other."""
    n = len(values)
    left = np.array([statistic(np.delete(values, i, axis=0)) for i in range(n)])
    return float((n - 1) / n * ((left - left.mean()) ** 2).sum())


def test_the_variance_of_a_mean_is_the_jackknife_s_exactly():
    a, b = DRAWN.random((2, 12))
    found = paired_difference(paired_sums(a, b, np.ones(12)))
    assert found.variance == pytest.approx(jackknife(b - a, np.mean), rel=1e-12)
    half = student.ppf(0.975, 11) * (b - a).std(ddof=1) / math.sqrt(12)
    assert (found.low, found.high) == pytest.approx(((b - a).mean() - half, (b - a).mean() + half))


def test_sums_of_centers_add_up_to_the_pooled_ones():
    a, b = DRAWN.random((2, 30))
    parts = [paired_sums(a[own], b[own], np.ones(10)) for own in (slice(0, 10), slice(10, 20), slice(20, 30))]
    fields = ("n", "a", "b", "w", "dd", "dw", "ww")
    added = type(parts[0])(*(sum(getattr(one, name) for one in parts) for name in fields))
    assert paired_difference(added).variance == pytest.approx(
        paired_difference(paired_sums(a, b, np.ones(30))).variance, rel=1e-12
    )


def test_who_has_no_weight_is_not_counted():
    found = paired_difference(paired_sums(np.array([0.2, 9.0] * 6), np.array([0.4, 7.0] * 6), np.array([1.0, 0.0] * 6)))
    assert (found.n, found.a, found.b) == (6, pytest.approx(0.2), pytest.approx(0.4))
    assert paired_difference(paired_sums(np.ones(3), np.ones(3), np.zeros(3))) is None
    assert paired_difference(paired_sums(np.ones(4), np.zeros(4), np.ones(4))).low is None


def test_concordance_differs_as_the_existing_interval_says_and_near_the_jackknife():
    n = 60
    time, event = DRAWN.integers(1, 40, n).astype(float), (DRAWN.random(n) < 0.7).astype(float)
    risks = [-time + DRAWN.normal(size=n) * 15, np.zeros(n)]  # the second ties all: 0.5 by every subset

    def wins(risk):
        concordant, tied, comparable = ranked_pairs(time, event, risk)
        won = concordant + tied / 2
        return won.sum(axis=0) + won.sum(axis=1), comparable.sum(axis=0) + comparable.sum(axis=1)

    (b, pairs), (a, _) = (wins(risk) for risk in risks)
    found = paired_difference(paired_sums(a, b, pairs.astype(float)), order=PAIRS)
    cc, cn, nn = pair_spread(time, event, risks[0])
    index = b.sum() / pairs.sum()
    known = (cc - 2 * index * cn + index**2 * nn) / (pairs.sum() / 2) ** 2
    assert found.value == pytest.approx(index - 0.5)
    assert found.variance == pytest.approx(known * n / (n - 1), rel=1e-9)

    def of(rows):
        concordant, tied, comparable = ranked_pairs(*rows.T)
        return (concordant.sum() + tied.sum() / 2) / comparable.sum()

    exact = jackknife(np.stack([time, event, risks[0]], axis=1), of)
    assert found.variance == pytest.approx(exact, rel=0.1)
