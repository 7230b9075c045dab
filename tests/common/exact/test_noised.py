"""A fit on noised sums: the bound of one patient's part, and a search that without noise is Newton's."""

import math
from itertools import pairwise

import numpy as np
import pytest

from common.exact.columns import Layout, plain_rows
from common.exact.fit import fit_newton, fit_ridge
from common.exact.noised import Ridge, longest, noise_scales, raised, spectral, step_from
from common.exact.objectives import GRADIENT, HESSIAN, Hazard, Logistic, with_ones
from common.privacy.plan import Plan

CLIP = 2.0
OBJECTIVES = {"logistic": Logistic(1), "two classes": Logistic(2), "hazard": Hazard(4), "ridge": Ridge(2)}


def patients(objective, count, seed=0, length=None):
    """Rows within the bound, with every kind of target."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 5))
    x *= CLIP * (rng.random((count, 1)) if length is None else length) / np.linalg.norm(x, axis=1, keepdims=True)
    if objective.kind == "hazard":
        return x, np.stack([rng.integers(0, 4, count), rng.integers(0, 2, count)], axis=1).astype(float)
    return x, rng.integers(-1, 2, (count, objective.classes)).astype(float)


def test_triangles_of_a_matrix_are_no_longer_than_it():
    matrix = np.full((3, 3), 2.0)
    assert np.linalg.norm(np.tril(matrix)) < np.linalg.norm(matrix)


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("round", [0, 1])
def test_no_patients_part_is_longer_than_the_bound(name, round):
    objective = OBJECTIVES[name]
    x, target = patients(objective, 200, length=np.ones((200, 1)))
    rng = np.random.default_rng(1)
    beta = (rng.normal(size=objective.shape(5)) * 20) * round
    most = longest(objective, CLIP, round=round)
    seen = dict.fromkeys(most, 0.0)
    for place in range(len(x)):
        own = objective.sums(x[place : place + 1], target[place : place + 1], beta)
        for part in most:
            seen[part] = max(seen[part], float(np.linalg.norm(own[part])))
    for part, bound in most.items():
        if name != "ridge" or round == 0:  # a ridge is its first question
            assert seen[part] <= bound * (1 + 1e-12), part
        if round == 0:  # and somebody reaches it: noise is for no more than a patient can add
            assert seen[part] == pytest.approx(bound, rel=1e-9), part


def test_a_fit_asks_for_one_hessian_at_zero():
    assert set(longest(Logistic(), CLIP, round=0)) == {GRADIENT, HESSIAN}
    assert set(longest(Logistic(), CLIP, round=1)) == {GRADIENT}


def test_sums_that_leave_together_are_one_gaussian():
    """(gradient / bound, Hessian / bound) of a patient is at most the root of 2 long, and noise that times more."""
    plan = Plan(20, 20, 1, CLIP, 0.005, noise=3.0)
    assert noise_scales(Logistic(), plan, round=0) == pytest.approx(
        {GRADIENT: 3 * math.sqrt(2) * math.sqrt(5) / 2, HESSIAN: 3 * math.sqrt(2) * 5 / 4}
    )
    assert noise_scales(Logistic(), plan, round=1) == pytest.approx({GRADIENT: 3 * math.sqrt(5)})


def searched(objective, x, target, *, rounds, penalty, floor=0.0):
    beta, weights = np.zeros(objective.shape(5)), penalty * objective.penalised(5)
    hessian = objective.sums(x, target, beta)[HESSIAN]
    for _ in range(rounds):
        sums = {GRADIENT: objective.sums(x, target, beta)[GRADIENT], HESSIAN: hessian}
        beta = step_from(beta, sums, penalty=weights, floor=floor)
    return beta


@pytest.mark.parametrize("name", ["logistic", "hazard"])
def test_without_noise_the_search_ends_where_newtons_does(name):
    objective = OBJECTIVES[name]
    x, target = patients(objective, 60)
    layout = Layout(tuple("abcde"))
    exact = fit_newton(objective, layout, [plain_rows(x, target)], penalty=1.0)
    z = (x - exact.scaling.mean) / exact.scaling.scale
    found, _ = objective.split(searched(objective, z, target, rounds=2000, penalty=1.0), 5)
    np.testing.assert_allclose(found, exact.weight, atol=1e-6)


def test_each_step_lowers_the_loss_however_few_patients_there_are():
    objective = Logistic()
    for seed in range(20):
        x, target = patients(objective, 6, seed)
        losses = [
            objective.sums(x, target, b)["newton.loss"][0] + (b[0] ** 2 * objective.penalised(5)).sum() / 2
            for b in (searched(objective, x, target, rounds=r, penalty=1.0) for r in range(6))
        ]
        assert all(after <= before + 1e-12 for before, after in pairwise(losses))


def test_a_ridge_is_one_step():
    x, target = patients(Logistic(1), 40)
    layout = Layout(tuple("abcde"))
    exact = fit_ridge(layout, [plain_rows(x, target)], penalty=2.0)
    z = (x - exact.scaling.mean) / exact.scaling.scale
    beta = searched(Ridge(1), z, target, rounds=1, penalty=2.0)
    np.testing.assert_allclose(beta[:, 1:], exact.weight, atol=1e-10)
    np.testing.assert_allclose(beta[:, 0], exact.bias, atol=1e-10)
    known = target[:, 0] >= 0
    assert Ridge(1).sums(z, target, np.zeros((1, 6)))[HESSIAN][0][0, 0] == known.sum() == with_ones(z)[known].shape[0]


def test_noise_never_makes_a_step_longer_than_the_curvature_allows():
    noised = np.diag([5.0, 0.1, -3.0])
    np.testing.assert_allclose(np.linalg.eigvalsh(raised(noised, 1.0)), [1.0, 1.0, 5.0])
    rng = np.random.default_rng(0)
    lower = np.tril(rng.normal(size=(200, 200)))
    noise = lower + np.tril(lower, -1).T
    assert np.abs(np.linalg.eigvalsh(noise)).max() == pytest.approx(spectral([1.0], 200), rel=0.1)
