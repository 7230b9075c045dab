"""The federated fit is the centralized one: against other people's code, and against the same code on pooled cases."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lifelines import CoxPHFitter
from scipy.optimize import minimize

from common.errors import UnknownName
from common.exact.columns import Layout, Rows, moment_sums, plain_rows, pooled, scaling_from, standardise
from common.exact.fit import fit_features, fit_newton, fit_ridge
from common.exact.objectives import GRADIENT, HESSIAN, LOSS, Cox, Hazard, Logistic, build_objective, newton_shapes
from common.exact.ridge import ridge_from_sums, ridge_sums
from common.exact.search import advance, begin

P = 4


def survival(seed: int, sizes=(30, 12, 1, 20), ties: int = 40) -> list[Rows]:
    rng = np.random.default_rng(seed)
    found = []
    for n in sizes:
        x = rng.normal([0, 60, 0, 2], [1, 10, 0.1, 1], size=(n, P))
        time = np.ceil(rng.exponential(ties, n) * np.exp(-0.5 * x[:, 0]))
        found.append(plain_rows(x, np.stack([time, rng.random(n) < 0.6], axis=1)))
    return found


def labelled(seed: int, sizes=(30, 12, 1, 20), classes: int = 2) -> list[Rows]:
    """Two values of which the first is unknown for some, and everywhere at the second center."""
    rng = np.random.default_rng(seed)
    found = []
    for number, n in enumerate(sizes):
        flags = (rng.random((n, 2)) < 0.7).astype(float)
        flags[:, 0] *= number != 1
        values = rng.normal(5, 2, size=(n, 2)) * flags
        found.append(Rows(values, flags, rng.integers(-1, 2, size=(n, classes)).astype(float)))
    return found


FLAGGED = Layout(("a", "b"), ("a", "b"), (0, 1))


def numeric_gradient(objective, x, target, beta):
    step = 1e-5
    found = np.zeros_like(beta)
    for place in np.ndindex(beta.shape):
        up, down = beta.copy(), beta.copy()
        up[place], down[place] = up[place] + step, down[place] - step
        rise = objective.sums(x, target, up)[LOSS] - objective.sums(x, target, down)[LOSS]
        found[place] = rise[place[0]] / (2 * step)
    return found


OBJECTIVES = {
    "cox": (Cox(), lambda rng, n: np.stack([rng.integers(1, 9, n), rng.integers(0, 2, n)], axis=1)),
    "hazard": (Hazard(5), lambda rng, n: np.stack([rng.integers(0, 5, n), rng.integers(0, 2, n)], axis=1)),
    "logistic": (Logistic(2), lambda rng, n: rng.integers(-1, 2, (n, 2))),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_gradients_and_hessians_are_the_derivatives_of_the_loss(name):
    rng = np.random.default_rng(3)
    objective, make = OBJECTIVES[name]
    x, target = rng.normal(size=(20, P)), make(rng, 20).astype(float)
    beta = rng.normal(size=objective.shape(P)) / 2
    sums = objective.sums(x, target, beta)
    assert {k: v.shape for k, v in sums.items()} == newton_shapes(objective, P)
    np.testing.assert_allclose(sums[GRADIENT], numeric_gradient(objective, x, target, beta), atol=1e-7)
    for row in range(beta.shape[1]):
        step = np.zeros_like(beta)
        step[:, row] = 1e-5
        up, down = (objective.sums(x, target, beta + s)[GRADIENT] for s in (step, -step))
        np.testing.assert_allclose(sums[HESSIAN][:, row], (up - down) / 2e-5, atol=1e-6)


def test_cox_is_lifelines_stratified_cox_with_efron_ties():
    centers = survival(0)
    fitted = fit_newton(Cox(), Layout(tuple("abcd")), centers, penalty=0.0)
    frame = pd.concat([
        pd.DataFrame(rows.values, columns=list("abcd")).assign(
            time=rows.target[:, 0], event=rows.target[:, 1], center=number
        )
        for number, rows in enumerate(centers)
    ])  # fmt: skip
    theirs = CoxPHFitter(strata=["center"]).fit(
        frame, "time", "event", fit_options={"precision": 1e-14, "r_precision": 1e-14, "max_steps": 50}
    )
    ours = fitted.weight[0] / fitted.scaling.scale
    np.testing.assert_allclose(ours, theirs.params_[list("abcd")], atol=1e-9)
    assert -fitted.loss[0] == pytest.approx(theirs.log_likelihood_, abs=1e-9)
    assert fitted.converged and fitted.rounds <= 9


@given(seed=st.integers(0, 10_000), sizes=st.lists(st.integers(1, 15), min_size=1, max_size=5))
@settings(max_examples=15, deadline=None)
def test_discrete_hazard_and_logistic_do_not_care_how_cases_are_spread(seed, sizes):
    rng = np.random.default_rng(seed)
    n = sum(sizes)
    x = rng.normal([0, 50], size=(n, 2))
    targets = {
        Hazard(4): np.stack([rng.integers(0, 4, n), rng.integers(0, 2, n)], axis=1),
        Logistic(2): rng.integers(-1, 2, (n, 2)),
    }
    cuts = np.cumsum(sizes)[:-1]
    for objective, target in targets.items():
        apart = fit_features(objective, np.split(x, cuts), np.split(target.astype(float), cuts))
        together = fit_features(objective, [x], [target.astype(float)])
        np.testing.assert_allclose(apart.weight, together.weight, atol=1e-9)
        np.testing.assert_allclose(apart.bias, together.bias, atol=1e-7)


def test_logistic_with_penalty_is_a_general_optimisers():
    rows = labelled(1, classes=1)
    ours = fit_newton(Logistic(1), FLAGGED, rows, penalty=2.0)
    everyone = pooled(rows)
    x = standardise(FLAGGED, everyone.values, everyone.flags, ours.scaling)
    weights = 2.0 * Logistic(1).penalised(x.shape[1])

    def value(beta):
        sums = Logistic(1).sums(x, everyone.target, beta[None])
        return sums[LOSS][0] + (weights * beta**2).sum() / 2, sums[GRADIENT][0] + weights * beta

    best = minimize(value, np.zeros(5), jac=True, method="BFGS", options={"gtol": 1e-9})
    np.testing.assert_allclose(np.r_[ours.bias, ours.weight[0]], best.x, atol=1e-6)


def test_ridge_is_the_closed_form_on_pooled_cases_in_one_round():
    centers = labelled(2)
    ours = fit_ridge(FLAGGED, centers, penalty=3.0)
    everyone = pooled(centers)
    for label in range(2):
        known = everyone.target[:, label] >= 0
        x = standardise(FLAGGED, everyone.values, everyone.flags, ours.scaling)[known]
        x = np.c_[np.ones(len(x)), x]
        y = 2 * everyone.target[known, label] - 1
        weights = np.diag(3.0 * np.r_[1e-4, np.ones(4)])
        np.testing.assert_allclose(
            np.r_[ours.bias[label], ours.weight[label]], np.linalg.solve(x.T @ x + weights, x.T @ y), atol=1e-9
        )
    assert ours.rounds == 1


@given(seed=st.integers(0, 10_000), gone=st.integers(0, 3))
@settings(max_examples=20, deadline=None)
def test_subtracting_a_centers_ridge_sums_is_never_having_had_it(seed, gone):
    centers = labelled(seed)
    each = [ridge_sums(FLAGGED, rows) for rows in centers]
    total = {name: sum(part[name] for part in each) for name in each[0]}
    left = {name: total[name] - each[gone][name] for name in total}
    without = fit_ridge(FLAGGED, [rows for i, rows in enumerate(centers) if i != gone])
    subtracted = ridge_from_sums(FLAGGED, left)
    np.testing.assert_allclose(subtracted.weight, without.weight, atol=1e-9)
    np.testing.assert_allclose(subtracted.bias, without.bias, atol=1e-9)


@pytest.mark.parametrize("with_flags", [True, False])
def test_a_variable_that_a_center_never_recorded_is_zero_there_and_has_no_gradient(with_flags):
    layout = Layout(("a", "b"), ("a", "b"), (0, 1), with_flags=with_flags)
    centers = labelled(5, classes=1)
    scaling = scaling_from(
        {k: sum(moment_sums(layout, r)[k] for r in centers) for k in moment_sums(layout, centers[0])}
    )
    rows = centers[1]  # never recorded "a"
    x = standardise(layout, rows.values, rows.flags, scaling)
    recorded = [name.startswith("b") for name in layout.names]
    assert (x[:, [not r for r in recorded]] == 0).all()
    sums = Logistic(1).sums(x, rows.target, np.full((1, 1 + len(layout.names)), 0.3))
    assert (sums[GRADIENT][0, 1:][[not r for r in recorded]] == 0).all()
    assert (sums[GRADIENT][0, 1:][recorded] != 0).any()


def test_a_variable_that_nobody_recorded_keeps_a_weight_of_zero_even_without_a_penalty():
    centers = [Rows(r.values * [0, 1], r.flags * [0, 1], r.target) for r in labelled(6, classes=1)]
    fitted = fit_newton(Logistic(1), FLAGGED, centers, penalty=0.0)
    assert fitted.converged
    np.testing.assert_allclose(fitted.weight[0, [0, 2]], 0, atol=1e-9)


def test_a_stratum_without_an_event_adds_nothing():
    rows = plain_rows(np.ones((3, 2)), np.array([[1.0, 0], [2, 0], [3, 0]]))
    sums = Cox().sums(rows.values, rows.target, np.ones((1, 2)))
    assert all((value == 0).all() for value in sums.values())


def test_separated_cases_stop_at_the_limit_and_say_so():
    x, y = np.array([[-1.0], [1.0]]), np.array([[0.0], [1.0]])
    fitted = fit_newton(Logistic(1), Layout(("x",)), [plain_rows(x, y)], penalty=0.0, max_rounds=5)
    assert not fitted.converged
    assert fit_newton(Logistic(1), Layout(("x",)), [plain_rows(x, y)], penalty=0.1).converged


def test_a_step_that_overshoots_is_halved_until_the_loss_falls():
    search = begin((1, 1))

    def sums(beta):  # sqrt(1 + b^2) from b = 0 + 2: Newton without damping diverges beyond 1
        b = beta - 2
        root = np.sqrt(1 + b**2)
        return {LOSS: root[:, 0], GRADIENT: b / root, HESSIAN: (1 / root**3)[..., None]}

    while not search.done:
        search = advance(search, sums(search.asked), penalty=np.zeros(1))
    assert search.asked[0, 0] == pytest.approx(2.0, abs=1e-9) and search.rounds < 20


def bowl(beta, *, lift=0.0):
    """Loss, gradient and Hessian of |b - 2|^2 / 2, the loss lifted everywhere but at the start."""
    b = beta - 2
    return {LOSS: b[:, 0] ** 2 / 2 + lift * (beta[:, 0] != 0), GRADIENT: b, HESSIAN: np.ones((1, 1, 1))}


@pytest.mark.parametrize(("lift", "settles"), [(1e6, False), (3.0, False), (0.0, True)])
def test_a_direction_along_which_the_loss_never_fell_is_no_solution(lift, settles):
    search = begin((1, 1))
    while not search.is_over:
        search = advance(search, bowl(search.asked, lift=lift), penalty=np.zeros(1))
    if settles:
        assert search.done and search.asked[0, 0] == pytest.approx(2.0, abs=1e-9)
    else:
        assert search.failed.all() and not search.done and search.rounds < 40
        assert search.asked[0, 0] == search.accepted[0, 0]


def test_a_direction_that_only_rounding_exhausts_is_a_solution():
    """So near the optimum that a step gains less than a loss can show: the point is as good as it gets."""
    at = np.full((1, 1), 2 - 3e-6)
    search = begin((1, 1), at=at)
    while not search.is_over:
        sums = bowl(search.asked)
        sums[LOSS] = sums[LOSS] + 1.0 + 1e-9 * (search.asked[:, 0] != at[0, 0])
        search = advance(search, sums, penalty=np.zeros(1))
    assert search.done and search.asked[0, 0] == at[0, 0] and search.decrement[0] == pytest.approx(9e-12)


def test_an_unknown_objective_names_the_known_ones():
    with pytest.raises(UnknownName, match=r"Known: cox, hazard, logistic\. Did you mean 'cox'"):
        build_objective("coxx")
