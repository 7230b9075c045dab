"""Survival figures of two libraries and ours on the same patients: where they differ, each by its value.

scikit-survival is no dependency; its values are of 0.28.0 on the same data.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter, KaplanMeierFitter
from lifelines.utils import concordance_index as lifelines_concordance

from common.exact.columns import Layout, plain_rows
from common.exact.fit import fit_newton
from common.exact.objectives import Cox
from common.metrics import breslow, breslow_counts, concordance_index, harrell_counts, kaplan_meier
from common.metrics.survival import cut_index, survival_at

FIT = {"precision": 1e-12, "r_precision": 1e-12}
COUNT, TIMES = 40, np.arange(1, 9) * 100.0
SKSURV_EFRON = {0.0: -0.46689173, 4.0: -0.34326431}  # alpha: coefficient; its default, Breslow, gives -0.39480944


@pytest.fixture(scope="module")
def cohort():
    rng = np.random.default_rng(0)
    x = rng.normal(3, 1, COUNT)
    return pd.DataFrame({"x": x, "t": rng.integers(1, 9, COUNT) * 100.0, "e": rng.integers(0, 2, COUNT)})


def lifelines_cox(cohort, *, penalizer=0.0):
    return CoxPHFitter(penalizer=penalizer).fit(cohort, "t", "e", fit_options=FIT)


def our_cox(cohort, *, penalty):
    rows = plain_rows(cohort[["x"]].to_numpy(), cohort[["t", "e"]].to_numpy(float))
    fitted = fit_newton(Cox(), Layout(("x",)), [rows], penalty=penalty)
    return float(fitted.weight[0][0] / fitted.scaling.scale[0]), float(fitted.scaling.scale[0])


def test_a_missing_risk_stops_lifelines_and_is_a_tie_here():
    time, event, risk = np.array([5.0, 8]), np.array([1.0, 1]), np.array([np.nan, 1])
    with pytest.raises(ValueError, match="NaNs"):
        lifelines_concordance(time, -risk, event)
    assert concordance_index(*harrell_counts(time, event, risk)) == 0.5


def test_risks_that_differ_by_rounding_are_in_order_here_and_in_lifelines():
    """scikit-survival counts a tie within 1e-8: 0.5."""
    time, event, risk = np.array([1.0, 2]), np.array([1.0, 1]), np.array([1 + 1e-12, 1])
    assert lifelines_concordance(time, -risk, event) == concordance_index(*harrell_counts(time, event, risk)) == 1.0


def test_lifelines_takes_times_and_we_take_risks():
    time, event, risk = np.array([1.0, 2]), np.array([1.0, 1]), np.array([2.0, 1])
    assert lifelines_concordance(time, risk, event) == 0.0
    assert concordance_index(*harrell_counts(time, event, risk)) == 1.0


def test_two_events_at_one_time_are_no_pair():
    time, event, risk = np.array([5.0, 5, 12]), np.ones(3), np.array([3.0, 2, 1])
    assert harrell_counts(time, event, risk).comparable == 2
    assert lifelines_concordance(time, -risk, event) == 1.0


def test_a_penalty_of_lifelines_is_per_patient_and_ours_is_on_the_sum(cohort):
    """Both on standardised columns, by the standard deviation over n - 1 there and over n here."""
    theirs = float(lifelines_cox(cohort, penalizer=0.1).params_["x"])
    assert theirs == pytest.approx(-0.38003459, abs=1e-7)
    assert our_cox(cohort, penalty=0.1 * COUNT * COUNT / (COUNT - 1))[0] == pytest.approx(theirs, abs=1e-7)
    assert our_cox(cohort, penalty=0.1)[0] < -0.45


@pytest.mark.parametrize("alpha", SKSURV_EFRON)
def test_a_penalty_of_scikit_survival_is_on_the_sum_and_on_columns_as_they_are(cohort, alpha):
    _, scale = our_cox(cohort, penalty=0.0)
    assert our_cox(cohort, penalty=alpha / scale**2)[0] == pytest.approx(SKSURV_EFRON[alpha], abs=1e-6)


def test_a_predicted_curve_is_one_at_time_0_here_alone(cohort):
    """lifelines and scikit-survival give the value at the first event for every time before it."""
    theirs = lifelines_cox(cohort).predict_survival_function(pd.DataFrame({"x": [3.0]}), times=[0, 50, 100, 150, 200])
    at = theirs[0].to_dict()
    assert at[0] == at[50] == at[100] < 1
    assert at[150] == pytest.approx(np.exp((np.log(at[100]) + np.log(at[200])) / 2))  # lifelines draws lines
    curve = np.array([[at[100], at[200]]])
    ours = survival_at(curve, np.array([0.0, 50, 100, 150]), np.array([100.0, 200]))
    assert ours[:, 0].tolist() == [1, 1, at[100], at[100]]  # steps


def test_an_event_at_time_0_counts_at_the_first_cut():
    theirs = KaplanMeierFitter().fit([0, 3, 5], [1, 0, 1]).survival_function_["KM_estimate"]
    assert theirs.to_dict() == pytest.approx({0: 2 / 3, 3: 2 / 3, 5: 0})
    for cuts in ([0.0, 3, 5], [3.0, 5]):
        index = cut_index(np.array([0.0, 3, 5]), np.array(cuts))
        at_risk = np.array([(index >= cut).sum() for cut in range(len(cuts))])
        events = np.bincount(index[[0, 2]], minlength=len(cuts))
        assert kaplan_meier(at_risk, events)[0] == pytest.approx(2 / 3)


def test_a_baseline_is_that_of_risk_0_here_and_of_the_mean_patient_in_lifelines(cohort):
    fitted = lifelines_cox(cohort)
    risk = cohort["x"].to_numpy() * float(fitted.params_["x"])
    index = cut_index(cohort["t"].to_numpy(), TIMES)
    ours = breslow(*breslow_counts(index, cohort["e"].to_numpy(), risk, bins=len(TIMES)))
    theirs = fitted.baseline_cumulative_hazard_["baseline cumulative hazard"]
    assert theirs.index[0] == 100  # nothing at time 0
    assert ours == pytest.approx(theirs.to_numpy() * np.exp(-risk.mean()), rel=1e-9)
