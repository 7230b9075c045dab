"""Survival metrics: the golden values of scikit-survival and pycox, and sums that add up over centers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lifelines import KaplanMeierFitter

from common.metrics import (
    antolini_counts,
    brier_sums,
    censoring_counts,
    censoring_survival,
    concordance_index,
    d_calibration,
    d_calibration_counts,
    dynamic_auc_sums,
    integrated,
    reliability_sums,
    uno_sums,
)
from common.metrics.survival import survival_at, weights_at

GOLDEN = Path(__file__).parents[3].parent / "shared" / "golden" / "surv.json"


@pytest.fixture(scope="module")
def golden():
    if not GOLDEN.is_file():
        pytest.skip(f"golden values are not at {GOLDEN}")
    return json.loads(GOLDEN.read_text())


def uno(time, event, risk, *, cuts):
    censoring = censoring_survival(*censoring_counts(time, event, cuts))
    weight = weights_at(time, event, cuts, censoring, through=True) ** 2
    return concordance_index(*uno_sums(time, event, risk, weight=weight))


@pytest.mark.parametrize(("tau", "key"), [(24, "A_uno_sksurv_tau=None"), (16, "A_uno_sksurv_tau=16.0")])
def test_uno_on_a_grid_of_all_times_matches_scikit_survival(golden, tau, key):
    time, event, risk = (np.array(golden["inputs"]["A"][name], float) for name in ("T", "E", "risk"))
    grid = np.array([t for t in sorted({0.0, *time}) if t <= tau])
    assert uno(time, event, risk, cuts=grid) == pytest.approx(golden[key][0], abs=1e-10)


@pytest.fixture(scope="module")
def d(golden):
    d = golden["inputs"]["D"]
    grid, time, event = (np.array(d[name], float) for name in ("grid", "durations", "events"))
    return grid, time, event, np.array(golden["B_deephit_surv"])


def censored_on_the_grid(hazard, *, censored, bins):
    """Every kind of patient of a discrete population, (time, event), and its expected share: at each grid time events
    come first, then a share of the others is censored."""
    kinds, left = [], 1.0
    for k in range(1, bins):
        kinds += [(k, 1, left * hazard), (k, 0, left * (1 - hazard) * censored)]
        left *= (1 - hazard) * (1 - censored)
    time, event, share = np.array([*kinds, (bins, 0, left)], float).T  # the last: beyond the grid
    return time, event, share


HEAVY = {"hazard": 0.03, "censored": 0.15, "bins": 12}  # DEFECTS A8's simulation, as an expectation


@pytest.fixture(scope="module")
def oracle():
    """The grid, the true survival and censoring on it, and the population."""
    grid, bins = np.arange(12.0), np.arange(12)
    return grid, (1 - HEAVY["hazard"]) ** bins, (1 - HEAVY["censored"]) ** bins, censored_on_the_grid(**HEAVY)


def test_censoring_on_a_grid_with_ties_is_the_true_one(oracle):
    grid, _, truth, (time, event, share) = oracle
    counts = [censoring_counts(t[None], e[None], grid) for t, e in zip(time, event, strict=True)]
    at_risk, censored = (sum(s * c[i] for s, c in zip(share, counts, strict=True)) for i in (0, 1))
    assert censoring_survival(at_risk, censored) == pytest.approx(truth, abs=1e-12)


def test_the_brier_score_of_a_perfect_model_is_the_oracles_under_heavy_censoring(oracle):
    """Whoever predicts S for everyone is wrong by S (1 - S) on average, censored or not."""
    grid, survival, censoring, (time, event, share) = oracle
    where = {"cuts": grid, "censoring": censoring}
    each = [brier_sums(t[None], e[None], survival[None], **where) for t, e in zip(time, event, strict=True)]
    scores = sum(s * one for s, one in zip(share, each, strict=True))
    assert scores == pytest.approx(survival * (1 - survival), abs=1e-12)
    assert integrated(scores, grid) == pytest.approx(integrated(survival * (1 - survival), grid), abs=1e-12)


def test_the_share_of_events_by_the_middle_is_the_true_one_under_heavy_censoring(oracle):
    grid, survival, censoring, (time, event, share) = oracle
    for k in (6, 11):
        seen = share * weights_at(time, event, grid, censoring) * (time <= k)
        assert seen.sum() == pytest.approx(1 - survival[k], abs=1e-12)


def test_scikit_survivals_weights_are_too_large_where_times_tie(oracle):
    """What Uno's concordance keeps on purpose: the same events stand for 1 / 0.85 as many patients."""
    grid, _, censoring, (time, event, _) = oracle
    left, through = (weights_at(time, event, grid, censoring, through=how) for how in (False, True))
    assert through[event > 0] == pytest.approx(left[event > 0] / 0.85)


def test_an_event_in_a_bin_in_which_everyone_else_is_censored_keeps_its_weight():
    time, event, grid = np.array([1.0, 2, 2]), np.array([1.0, 1, 0]), np.array([0.0, 1, 2])
    censoring = censoring_survival(*censoring_counts(time, event, grid))
    assert censoring.tolist() == [1, 1, 0]
    assert weights_at(time, event, grid, censoring).tolist() == [1, 1, 0]


def test_the_auc_over_time_is_that_of_the_uncensored_population():
    """Two groups of 256, hazards 1/2 and 1/4, and half of the others censored in every bin; without censoring 192 and
    112 have relapsed by the second bin and 64 and 144 have not."""
    grid, rows = np.array([0.0, 1, 2]), []
    for risk, kinds in ((1.0, ((128, 64), (32, 16))), (0.0, ((64, 96), (24, 36)))):
        for bin_, (relapsed, censored) in enumerate(kinds, start=1):
            rows += [(bin_, 1, risk)] * relapsed + [(bin_, 0, risk)] * censored
        rows += [(3, 0, risk)] * (256 - sum(map(sum, kinds)))
    time, event, risk = np.array(rows, float).T
    censoring = censoring_survival(*censoring_counts(time, event, grid))
    assert censoring.tolist() == [1, 0.5, 0.25]
    wins, pairs = dynamic_auc_sums(time, event, risk, cuts=grid, censoring=censoring)
    assert pairs[2] == (192 + 112) * (64 + 144) / 4  # a quarter of the controls is still seen
    assert wins[2] / pairs[2] == pytest.approx((192 * 144 + (192 * 64 + 112 * 144) / 2) / (304 * 208), abs=1e-12)


def test_antolini_matches_pycox(golden, d):
    grid, time, event, survival = d
    counts = antolini_counts(time, event, survival_at(survival, time, grid))
    assert concordance_index(*counts) == pytest.approx(golden["D_antolini"], abs=1e-12)


def test_brier_scores_match_pycox(golden, d):
    grid, time, event, survival = d
    moments = np.array([0.0, 3, 6, 9, 12])
    # the nine times on which the golden scores stand; censoring is counted on all of the patients' own times
    fine = np.unique(np.concatenate([moments, time]))
    censoring = censoring_survival(*censoring_counts(time, event, fine))
    stepped = survival_at(survival, fine, grid).T
    scores = brier_sums(time, event, stepped, cuts=fine, censoring=censoring) / len(time)
    at = dict(zip(fine, scores, strict=True))
    assert [at[6.0], at[12.0]] == pytest.approx(golden["D_brier_6_12"], abs=1e-7)
    assert integrated(np.array([at[m] for m in moments]), moments) == pytest.approx(golden["D_ibs_0_12"], abs=1e-7)


def test_censoring_is_lifelines_kaplan_meier_of_the_censored():
    generator = np.random.default_rng(0)
    time, event = generator.permutation(40) + 1.0, (generator.random(40) < 0.5).astype(float)  # no tied times
    grid = np.arange(41.0)
    mine = censoring_survival(*censoring_counts(time, event, grid))
    theirs = KaplanMeierFitter().fit(time, 1 - event).survival_function_at_times(grid).to_numpy()
    assert mine == pytest.approx(theirs, abs=1e-12)


def test_auc_over_time_without_censoring_is_the_share_of_ordered_pairs():
    time, event, risk = np.array([1.0, 2, 3, 4]), np.ones(4), np.array([4.0, 1, 3, 1])
    wins, pairs = dynamic_auc_sums(time, event, risk, cuts=np.array([0.0, 2, 9]), censoring=np.ones(3))
    assert (wins.tolist(), pairs.tolist()) == ([0, 2.5, 0], [0, 4, 0])  # at 2: {1, 2} against {3, 4}


def test_a_patient_beyond_the_horizon_is_a_control_everywhere():
    wins, pairs = dynamic_auc_sums(
        np.array([1.0, 50]), np.array([1.0, 1]), np.array([2.0, 1]), cuts=np.array([0.0, 1, 10]), censoring=np.ones(3)
    )
    assert (wins.tolist(), pairs.tolist()) == ([0, 1, 1], [0, 1, 1])


cohorts = st.lists(
    st.tuples(st.floats(0.5, 30), st.booleans(), st.floats(0, 1), st.booleans()), min_size=2, max_size=15
)


@settings(max_examples=40, deadline=None)
@given(cohorts)
def test_sums_of_two_centers_are_the_sums_over_all_cases(rows):
    """All but the pairs, which are formed within a center."""
    time, event, risk, side = (np.array(x, float) for x in zip(*rows, strict=True))
    grid = np.linspace(0, 24, 5)
    censoring = censoring_survival(*censoring_counts(time, event, grid))
    curves = np.clip(1 - risk[:, None] * np.linspace(0, 1, 5)[None, :], 0, 1)

    def sums(chosen):
        own = np.diagonal(survival_at(curves[chosen], time[chosen], grid))
        return np.concatenate([
            *censoring_counts(time[chosen], event[chosen], grid),
            brier_sums(time[chosen], event[chosen], curves[chosen], cuts=grid, censoring=censoring),
            d_calibration_counts(own, event[chosen]),
            *reliability_sums(1 - curves[chosen][:, 2], event[chosen]),
        ])  # fmt: skip

    everyone = sums(np.ones(len(time), bool))
    assert sums(side > 0) + sums(side == 0) == pytest.approx(everyone, abs=1e-9)
    assert np.isfinite(everyone).all()


def test_d_calibration_spreads_a_censored_case_over_the_bins_below():
    counts = d_calibration_counts(np.array([0.25, 0.25, 0.0]), np.array([1, 0, 0]))
    # relapse at S = 0.25: bin 2. Censored there: 0.05 of 0.25 in bin 2, 0.1 of 0.25 in each bin below. S = 0: bin 0.
    assert counts.tolist() == pytest.approx([0.4 + 1, 0.4, 1.2, *[0] * 7])
    assert counts.sum() == pytest.approx(3)


def test_d_calibration_accepts_uniform_curves_and_rejects_overconfident_ones():
    uniform = (np.arange(200) + 0.5) / 200
    assert d_calibration(d_calibration_counts(uniform, np.ones(200)))[1] > 0.99
    assert d_calibration(d_calibration_counts(uniform**4, np.ones(200)))[1] < 1e-6
    assert d_calibration(np.zeros(10)) is None


def test_reliability_counts_predictions_of_one_in_the_last_bin():
    found = reliability_sums(np.array([0.0, 0.99, 1.0]), np.array([0.0, 1, 1]), bins=2)
    assert (found.cases.tolist(), found.observed.tolist()) == ([1, 2], [0, 2])
