"""Intervals from summed counts cover what a bootstrap over patients covers; temperature and label metrics add up."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from common.metrics import (
    TEMPERATURES,
    auprc_from_counts,
    auroc_interval,
    balanced_accuracy,
    best_temperature,
    bootstrap_concordance,
    bootstrap_weights,
    calibration_error,
    concordance_index,
    concordance_interval,
    harrell_counts,
    pair_spread,
    score_bins,
    score_of_bin,
)


def cohort(n=120, seed=0):
    generator = np.random.default_rng(seed)
    risk = generator.normal(size=n)
    time = generator.exponential(np.exp(-risk))
    return time, (generator.random(n) < 0.6).astype(float), risk + generator.normal(size=n)


def test_the_interval_from_sums_is_that_of_a_bootstrap_over_patients():
    time, event, risk = cohort()
    low, high = concordance_interval(harrell_counts(time, event, risk), pair_spread(time, event, risk))
    weights = bootstrap_weights([0] * len(time), draws=2000)
    value, drawn = bootstrap_concordance(time, event, risk, groups=[0] * len(time), weights=weights)
    assert value == concordance_index(*harrell_counts(time, event, risk))
    assert low < value < high
    assert (low, high) == pytest.approx(tuple(np.nanquantile(drawn, [0.025, 0.975])), abs=0.012)


def test_spreads_of_centers_add_up():
    time, event, risk = cohort(60)
    halves = [slice(0, 25), slice(25, 60)]
    counts = np.sum([harrell_counts(time[h], event[h], risk[h]) for h in halves], axis=0)
    spread = np.sum([pair_spread(time[h], event[h], risk[h]) for h in halves], axis=0)
    _, drawn = bootstrap_concordance(
        time, event, risk, groups=[0] * 25 + [1] * 35, weights=bootstrap_weights([0] * 25 + [1] * 35, draws=2000)
    )
    assert concordance_interval(counts, spread) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=0.02)


def test_without_a_pair_or_a_doubt_there_is_no_interval():
    nothing, sure = np.zeros(0), np.array([1.0, 2, 3])
    assert concordance_interval(harrell_counts(*[nothing] * 3), pair_spread(*[nothing] * 3)) is None
    assert concordance_interval(harrell_counts(sure, np.ones(3), -sure), pair_spread(sure, np.ones(3), -sure)) is None


def test_a_bootstrap_by_weights_is_the_index_of_the_repeated_patients():
    time, event, risk = cohort(30)
    weights = bootstrap_weights([0] * 30, draws=5)
    _, drawn = bootstrap_concordance(time, event, risk, groups=[0] * 30, weights=weights)
    for value, row in zip(drawn, weights, strict=True):
        again = np.repeat(np.arange(30), row)
        assert value == pytest.approx(concordance_index(*harrell_counts(time[again], event[again], risk[again])))


def test_bootstrap_weights_keep_the_sizes_of_strata():
    weights = bootstrap_weights(list("aaab"), draws=50)
    assert (weights[:, 3] == 1).all() and (weights[:, :3].sum(axis=1) == 3).all() and (weights[:, 0] != 1).any()


def test_delong_from_histograms_is_delong_from_scores():
    generator = np.random.default_rng(1)
    positive, negative = generator.normal(1, 1, 60), generator.normal(0, 1, 90)
    order = np.sort(np.concatenate([positive, negative]))  # one bin per score: nothing is lost
    counts = [np.isin(order, part).astype(float) for part in (positive, negative)]
    wins = positive[:, None] > negative[None, :]
    variance = wins.mean(axis=1).var(ddof=1) / 60 + wins.mean(axis=0).var(ddof=1) / 90
    low, high = auroc_interval(*counts)
    middle, width = wins.mean(), 1.96 * np.sqrt(variance)
    odds = np.log(middle / (1 - middle))
    expected = [1 / (1 + np.exp(-(odds + side * width / (middle * (1 - middle))))) for side in (-1, 1)]
    assert [low, high] == pytest.approx(expected, abs=1e-4)
    assert auroc_interval(np.array([1.0, 0]), np.array([0.0, 9])) is None


def average_precision(score, label):
    order = np.argsort(-score)
    hits = np.cumsum(label[order])
    return float((label[order] * hits / np.arange(1, len(score) + 1)).sum() / label.sum())


@settings(max_examples=30, deadline=None)
@given(st.lists(st.booleans(), min_size=4, max_size=30).filter(lambda x: any(x) and not all(x)))
def test_auprc_is_the_average_precision_of_ranked_cases(labels):
    label = np.array(labels, float)
    score = np.random.default_rng(len(labels)).permutation(len(labels)).astype(float)
    counts = [np.bincount(score[label == side].astype(int), minlength=len(labels)) for side in (1, 0)]
    assert auprc_from_counts(*counts) == pytest.approx(average_precision(score, label))


def test_auprc_needs_both_and_balanced_accuracy_skips_what_does_not_occur():
    assert auprc_from_counts(np.array([1, 1]), np.zeros(2)) is None
    assert auprc_from_counts(np.zeros(2), np.ones(2)) is None
    assert balanced_accuracy(np.array([[8, 2, 0], [1, 1, 0], [0, 0, 0]])) == pytest.approx((0.8 + 0.5) / 2)
    assert balanced_accuracy(np.zeros((2, 2))) is None


def test_bins_give_their_own_scores_back():
    assert score_bins(score_of_bin()).tolist() == list(range(256))


def test_temperature_from_sums_is_that_of_all_cases():
    generator = np.random.default_rng(2)
    logits = generator.normal(0, 1, 400)
    label = generator.random(400) < 1 / (1 + np.exp(-logits))
    shown = 3.0 * logits  # three times too sure

    def nll(t, rows=slice(None)):
        return float(np.logaddexp(0, np.where(label, -1, 1) * shown / t)[rows].sum())

    centers = [np.array([nll(t, rows) for t in TEMPERATURES]) for rows in (slice(0, 150), slice(150, 400))]
    exact = minimize_scalar(nll, bounds=(0.1, 10), method="bounded", options={"xatol": 1e-8}).x
    assert best_temperature(sum(centers)) == pytest.approx(exact, rel=2e-3)
    assert best_temperature(np.zeros(len(TEMPERATURES))) == 1.0


def test_calibration_error_is_the_weighted_distance():
    assert calibration_error(np.array([10, 30]), np.array([2.0, 24]), np.array([4.0, 21])) == pytest.approx(5 / 40)
    assert calibration_error(np.zeros(2), np.zeros(2), np.zeros(2)) is None
