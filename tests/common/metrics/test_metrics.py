"""Metrics: golden values of the reference implementations, and the identities that let counts be added."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lifelines import KaplanMeierFitter
from lifelines.statistics import logrank_test
from lifelines.utils import concordance_index as lifelines_concordance

from common.metrics import (
    SCORE_BINS,
    auroc_from_counts,
    bootstrap_additive,
    bootstrap_weights,
    concordance_index,
    dsc_agg,
    harrell_counts,
    kaplan_meier,
    log_rank,
    mean_defined,
    percentile_interval,
    score_bins,
)

GOLDEN = Path(__file__).parents[3].parent / "shared" / "golden"


@pytest.fixture(scope="module")
def golden():
    if not GOLDEN.is_dir():
        pytest.skip(f"golden values are not at {GOLDEN}")
    return {name: json.loads((GOLDEN / f"{name}.json").read_text()) for name in ("surv", "misc")}


def test_harrell_counts_match_the_golden_values(golden):
    a = golden["surv"]["inputs"]["A"]
    counts = harrell_counts(a["T"], a["E"], a["risk"])
    index, concordant, tied, comparable = golden["surv"]["A_hecktor_rule"]
    assert counts == (concordant, tied, comparable)
    assert concordance_index(*counts) == pytest.approx(index, abs=1e-12)


def test_a_missing_risk_ties_with_every_other(golden):
    a = golden["surv"]["inputs"]["A"]
    risk = np.array(a["risk"], float)
    risk[3] = np.nan
    counts = harrell_counts(a["T"], a["E"], risk)
    index, concordant, tied, comparable = golden["surv"]["A_hecktor_rule_nan_idx3"]
    assert counts == (concordant, tied, comparable)
    assert concordance_index(*counts) == pytest.approx(index, abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 6), st.booleans(), st.integers(-2, 2)), min_size=2, max_size=12))
def test_harrell_agrees_with_lifelines_on_any_ties(rows):
    time, event, risk = (np.array(x, float) for x in zip(*rows, strict=True))
    mine = concordance_index(*harrell_counts(time, event, risk))
    if mine is None:
        with pytest.raises(ZeroDivisionError):
            lifelines_concordance(time, -risk, event)
    else:
        assert mine == pytest.approx(lifelines_concordance(time, -risk, event), abs=1e-12)


def test_no_comparable_pair_has_no_index():
    assert concordance_index(*harrell_counts(np.array([3.0, 5.0]), np.zeros(2), np.zeros(2))) is None
    assert concordance_index(*harrell_counts(np.zeros(0), np.zeros(0), np.zeros(0))) is None


def test_dsc_agg_matches_the_golden_values(golden):
    maps = {name: np.array(m) for name, m in golden["misc"]["inputs"]["dscagg"].items()}
    masks = {name: np.stack([m == 1, m == 2], axis=1) for name, m in maps.items()}  # (cases, S, voxels)
    both = (masks["gt"] & masks["pred"]).sum(axis=(0, 2))
    volumes = (masks["gt"].sum(axis=2) + masks["pred"].sum(axis=2)).sum(axis=0)
    wanted = golden["misc"]["dscagg"]
    assert dsc_agg(both, volumes) == pytest.approx([wanted["1"], wanted["2"]], abs=1e-12)
    assert mean_defined(dsc_agg(both, volumes)) == pytest.approx(wanted["mean"], abs=1e-12)


def test_a_structure_that_is_nowhere_has_no_dsc_agg():
    assert dsc_agg(np.array([1.0, 0.0]), np.array([4.0, 0.0])) == [0.5, None]
    assert mean_defined([0.5, None]) == 0.5
    assert mean_defined([None, None]) is None


def test_auroc_of_hand_counts():
    # one positive above both negatives, one tied with the upper of them: (2 + 1.5) of 4 pairs
    assert auroc_from_counts(np.array([0, 1, 1]), np.array([1, 1, 0])) == pytest.approx(0.875)
    assert auroc_from_counts(np.array([1, 1]), np.array([0, 0])) is None


def test_histogram_auroc_follows_the_ranks_of_small_and_large_logits():
    generator = np.random.default_rng(0)
    for scale in (0.05, 1.0, 8.0):
        scores = generator.normal(size=400) * scale
        labels = generator.random(400) < 1 / (1 + np.exp(-scores / scale))
        positive, negative = scores[labels], scores[~labels]
        exact = (positive[:, None] > negative[None, :]).mean()
        counts = [np.bincount(score_bins(part), minlength=SCORE_BINS) for part in (positive, negative)]
        assert auroc_from_counts(*counts) == pytest.approx(exact, abs=0.005)


def test_score_bins_stay_in_range_and_in_order():
    bins = score_bins(np.array([-np.inf, -20.0, -0.01, 0.0, 0.01, 20.0, np.inf]))
    assert bins[0] == 0 and bins[-1] == SCORE_BINS - 1
    assert (np.diff(bins) >= 0).all() and bins[2] < bins[3] < bins[4]


def test_kaplan_meier_and_log_rank_agree_with_lifelines():
    generator = np.random.default_rng(1)
    time, event = generator.integers(1, 9, 60), generator.random(60) < 0.6
    group = (generator.random(60) < 0.5).astype(int)
    grid = np.arange(1, 9)
    at_risk = np.array([[(time[group == g] >= t).sum() for t in grid] for g in (0, 1)], float)
    events = np.array([[((time == t) & event)[group == g].sum() for t in grid] for g in (0, 1)], float)
    fitted = KaplanMeierFitter().fit(time[group == 1], event[group == 1]).survival_function_at_times(grid)
    assert kaplan_meier(at_risk, events)[1] == pytest.approx(fitted.to_numpy(), abs=1e-12)
    wanted = logrank_test(time[group == 0], time[group == 1], event[group == 0], event[group == 1])
    assert log_rank(at_risk, events) == pytest.approx((wanted.test_statistic, wanted.p_value), rel=1e-9)


def test_log_rank_without_events_is_undefined():
    assert log_rank(np.array([[3, 2], [2, 1]]), np.zeros((2, 2))) is None


def mean_of(values, weights):
    sums = {"x": np.asarray(values, np.float64), "n": np.ones(len(values))}
    return bootstrap_additive(sums, lambda s: None if s["n"] == 0 else float(s["x"] / s["n"]), weights=weights)


def test_bootstrap_of_a_constant_shift_is_that_shift():
    values = np.random.default_rng(2).normal(size=30)
    weights = bootstrap_weights([0] * 30, draws=50)
    found = mean_of(values + 0.25, weights).minus(mean_of(values, weights)).estimate(n=30)
    assert found.value == pytest.approx(0.25) and found.n == 30
    assert found.interval == pytest.approx((0.25, 0.25), abs=1e-12)  # the pairing cancels all spread


def test_bootstrap_covers_the_standard_error_and_repeats_by_seed():
    generator = np.random.default_rng(3)
    a, b = generator.normal(0.5, 1, 200), generator.normal(0, 1, 200)

    def run(seed):
        weights = bootstrap_weights([0] * 200, draws=800, seed=seed)
        return percentile_interval(mean_of(a, weights)[1] - mean_of(b, weights)[1])

    assert run(0) == run(0) != run(1)
    low, high = run(0)
    assert high - low == pytest.approx(2 * 1.96 * np.std(a - b) / np.sqrt(200), rel=0.12)


def test_bootstrap_strata_keep_their_sizes():
    weights = bootstrap_weights(list("xxxy"), draws=20)
    assert weights.shape == (20, 4) and set(weights[:, 3]) == {1} and set(weights[:, :3].sum(axis=1)) == {3}


def test_bootstrap_leaves_out_undefined_draws():
    value, drawn = bootstrap_additive({"n": np.array([0.0, 1.0])}, lambda s: None, weights=np.ones((5, 2)))
    assert value is None and np.isnan(drawn).all() and percentile_interval(drawn) == (None, None)
    assert percentile_interval(np.array([np.nan, 1.0, 1.0])) == (1.0, 1.0)
