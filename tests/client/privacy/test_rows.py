"""Rows of an exact fit: every cell that sums can tell apart is of none or of enough patients, without a refusal."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.privacy.rows import shared_rows
from common.exact.columns import COUNT, SQUARE, SUM, Layout, Rows, moment_sums, scaling_from, standardise
from common.exact.objectives import HESSIAN, build_objective
from common.exact.ridge import GRAM, MOMENT, ridge_sums
from common.tasks.cells import few

VARIABLES = ("weight", "tobacco", "alcohol", "hpv")
LAYOUT = Layout(("age", *VARIABLES), ("age", *VARIABLES), (0, 1, 2, 3, 4))
# FACTS A6: patients, and how many of them lack weight, tobacco, alcohol, HPV (surgery is not a model's variable)
HECKTOR = {
    "CHUM": (56, (0, 56, 56, 34)), "CHUP": (72, (0, 0, 0, 14)), "CHUS": (72, (0, 72, 72, 39)),
    "CHUV": (53, (0, 53, 53, 48)), "HGJ": (55, (0, 55, 55, 17)), "HMR": (18, (6, 18, 18, 16)),
    "MDA": (198, (0, 51, 88, 16)),
}  # fmt: skip


def rows_of(count, missing, *, objective, seed, bins=12, share=0.25):
    rng = np.random.default_rng(seed)
    flags = np.ones((count, 5))
    for place, number in enumerate(missing, start=1):
        flags[rng.permutation(count)[:number], place] = 0
    values = np.c_[rng.integers(40, 90, count), rng.integers(50, 120, count), rng.integers(0, 2, (count, 3))] * flags
    event = (rng.permutation(count) < round(share * count)).astype(float)
    time = rng.integers(0, bins, count) if objective == "hazard" else rng.integers(20, 2000, count)
    target = event[:, None] if objective in ("logistic", "ridge") else np.c_[time, event]
    return Rows(values.astype(float), flags, target)


def groups_of(rows, objective):
    """Patients that the sums treat alike: same outcome, same recorded variables."""
    outcome = rows.target if objective in ("hazard", "logistic", "ridge") else rows.target[:, 1:]
    return np.unique(np.c_[outcome, rows.flags], axis=0, return_counts=True)[1]


def told(shared, objective, beta=0.0):
    """Everything that an exact fit asks of these rows at one point."""
    moments = moment_sums(LAYOUT, shared.rows)
    if objective == "ridge":
        return ridge_sums(LAYOUT, shared.rows)
    scaling = scaling_from(moments)
    x = standardise(LAYOUT, shared.rows.values, shared.rows.flags, scaling)
    goal = build_objective(objective, bins=12)
    return moments | goal.sums(x, shared.rows.target, np.full(goal.shape(x.shape[1]), beta))


@pytest.mark.parametrize("objective", ["hazard", "logistic", "cox", "ridge"])
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(5, 70), minimum=st.integers(2, 6), data=st.data())
def test_whatever_is_missing_no_group_that_sums_tell_apart_is_of_a_few(objective, seed, count, minimum, data):
    missing = data.draw(st.tuples(*[st.integers(0, count)] * 4))
    rows = rows_of(max(count, minimum), missing, objective=objective, seed=seed)
    shared = shared_rows(LAYOUT, rows, objective=objective, minimum=minimum)
    if not shared.silent:
        assert not few(groups_of(shared.rows, objective), minimum).any()
        events = shared.rows.target[:, -1] > 0
        assert not few(np.array([events.sum()]), minimum).any()
    for a, b in itertools.product(range(5), repeat=2):
        pair = shared.rows.flags[:, [a, b]]
        assert not few(np.unique(pair, axis=0, return_counts=True)[1], minimum).any()


@pytest.mark.parametrize("objective", ["hazard", "logistic", "cox", "ridge"])
def test_with_a_minimum_of_one_rows_are_the_very_same(objective):
    rows = rows_of(9, (1, 3, 8, 2), objective=objective, seed=1)
    shared = shared_rows(LAYOUT, rows, objective=objective, minimum=1)
    assert shared.rows is rows and (shared.adjusted, shared.silent) == (0, False)


@pytest.mark.parametrize("objective", ["hazard", "logistic", "cox", "ridge"])
def test_hecktors_own_missingness_answers_everywhere(objective):
    """Every center answers; all but the smallest tell of outcomes, too, and most rows stay as they are."""
    for code, (count, missing) in HECKTOR.items():
        train = round(0.64 * count)
        lacking = tuple(round(0.64 * m) for m in missing)
        rows = rows_of(train, lacking, objective=objective, seed=3)
        shared = shared_rows(LAYOUT, rows, objective=objective, minimum=5)
        sums = told(shared, objective)
        assert all(np.isfinite(value).all() for value in sums.values())
        assert shared.silent == (code == "HMR"), code
        moved = 1.0 if objective == "hazard" else 0.5  # times on the hazard's grid wait for each other, too
        assert shared.adjusted <= moved * train, (code, shared.adjusted)


def test_the_one_patient_with_tobacco_is_not_in_any_sum():
    """DEFECTS A2: the Gram row of a rare flag was one patient's whole row, and the moment row the label."""
    rng = np.random.default_rng(0)
    flags = np.ones((12, 5))
    flags[1:, 2] = 0  # tobacco is recorded for one of twelve
    values = np.c_[rng.integers(50, 70, 12), rng.integers(60, 100, 12), np.ones((12, 3))] * flags
    values[0, :2] = 55, 94
    label = np.r_[np.ones(6), np.zeros(6)][:, None]
    for objective in ("ridge", "logistic"):
        shared = shared_rows(LAYOUT, Rows(values.astype(float), flags, label), objective=objective, minimum=5)
        assert shared.adjusted == 1 and (shared.rows.flags[:, 2] == 0).all() and (shared.rows.values[:, 2] == 0).all()
    sums = ridge_sums(LAYOUT, shared.rows)
    flag = 1 + len(LAYOUT.values) + 2
    assert (sums[GRAM][0, flag] == 0).all() and sums[MOMENT][0, flag] == 0
    assert sums[GRAM][0, 0, 1] == values[:, 0].sum(), "what everybody has recorded is summed as before"
    moments = moment_sums(LAYOUT, shared.rows)
    assert all(moments[name][2] == 0 for name in (COUNT, SUM, SQUARE))
    scaling = scaling_from(moments)
    x = standardise(LAYOUT, shared.rows.values, shared.rows.flags, scaling)
    hessian = build_objective("logistic").sums(x, label, np.zeros((1, x.shape[1] + 1)))[HESSIAN][0]
    assert (hessian[1 + len(LAYOUT.values) + 2] == 0).all(), "hidden in the moments, it enters no later sum either"


def test_a_value_that_all_but_a_few_have_is_the_mean_of_those():
    flags = np.ones((10, 5))
    flags[:2, 1] = 0
    values = np.ones((10, 5)) * np.arange(10)[:, None] * flags
    rows = Rows(values, flags, np.repeat([[0.0], [1.0]], 5, axis=0))
    shared = shared_rows(LAYOUT, rows, objective="logistic", minimum=5)
    assert (shared.rows.flags == 1).all() and (shared.rows.values[:2, 1] == np.arange(2, 10).mean()).all()
    assert (shared.rows.values[:, 0] == values[:, 0]).all() and shared.adjusted == 2


def test_neighboring_bins_of_a_hazard_differ_by_nobody_or_by_enough():
    """DEFECTS C1: on a fine grid the Hessian's rows of neighboring bins differed by one patient."""
    rows = rows_of(40, (0, 0, 0, 0), objective="hazard", seed=5, share=0.5)
    shared = shared_rows(LAYOUT, rows, objective="hazard", minimum=5)
    hessian = told(shared, "hazard")[HESSIAN][0]
    at_risk = 4 * np.diag(hessian)[:12]  # at beta = 0 every patient at risk weighs a quarter
    left = -np.diff(np.r_[at_risk, 0.0])
    assert not few(np.round(left, 6), 5).any() and np.isclose(at_risk[0], 40)


def test_an_outcome_that_a_few_have_tells_of_nobody():
    rows = rows_of(20, (0, 0, 0, 0), objective="hazard", seed=2, share=0.0)
    rows.target[:3, 1] = 1
    for objective in ("hazard", "cox"):
        shared = shared_rows(LAYOUT, rows, objective=objective, minimum=5)
        assert shared.silent
        sums = told(shared, objective)
        assert all((value == 0).all() for name, value in sums.items() if name.startswith("newton"))
        assert (sums[COUNT] == 20).all(), "its columns still help to standardise"


def test_two_classes_that_differ_by_a_few_are_not_both_told():
    target = np.repeat([[1.0, 1.0], [0.0, 0.0]], 10, axis=0)
    target[9, 1] = 0  # the second class has the same patients but one
    rows = Rows(np.ones((20, 5)), np.ones((20, 5)), target)
    shared = shared_rows(LAYOUT, rows, objective="logistic", minimum=5)
    assert (shared.rows.target[:, 0] == target[:, 0]).all() and (shared.rows.target[:, 1] == -1).all()
