"""Honest answers of an exact fit pass, and what no patients can make is named."""

import numpy as np
import pytest

from common.exact.bounds import impossible_sums
from common.exact.columns import COUNT, SQUARE, SUM, Layout, moment_sums, plain_rows, scaling_from, standardise
from common.exact.objectives import HESSIAN, LOSS, build_objective
from common.exact.ridge import CASES, GRAM, MOMENT, ridge_sums

LAYOUT = Layout(("a", "b", "c"))
OBJECTIVES = {"cox": build_objective("cox"), "hazard": build_objective("hazard", bins=5)}
OBJECTIVES["logistic"] = build_objective("logistic", classes=2)


def rows_of(kind, seed, cases=9):
    draw = np.random.default_rng(seed)
    target = {
        "cox": np.stack([draw.uniform(1, 900, cases), draw.integers(0, 2, cases)], axis=1),
        "hazard": np.stack([draw.integers(0, 5, cases), draw.integers(0, 2, cases)], axis=1),
        "logistic": draw.integers(-1, 2, (cases, 2)),
    }[kind]
    return plain_rows(draw.normal(3, 20, (cases, 3)), target.astype(float))


def answers(kind, seed, reach=1.0):
    """The center's moments and its Newton sums at a point ``reach`` away from zero."""
    objective, rows = OBJECTIVES[kind], rows_of(kind, seed)
    moments = moment_sums(LAYOUT, rows)
    x = standardise(LAYOUT, rows.values, rows.flags, scaling_from(moments))
    beta = np.random.default_rng(seed).normal(0, reach, objective.shape(3))
    return moments, objective.sums(x, rows.target, beta)


@pytest.mark.parametrize("kind", OBJECTIVES)
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("reach", [0.0, 1.0, 30.0])
def test_honest_sums_pass(kind, seed, reach):
    moments, sums = answers(kind, seed, reach)
    assert impossible_sums(moments, cases=9) == "" and impossible_sums(sums, cases=9) == ""


@pytest.mark.parametrize("seed", range(6))
def test_honest_gram_sums_pass(seed):
    assert impossible_sums(ridge_sums(LAYOUT, rows_of("logistic", seed)), cases=9) == ""


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        (HESSIAN, lambda h: -1e4 * np.ones_like(h) * np.eye(h.shape[-1]), "not positive semi-definite"),
        (HESSIAN, lambda h: h + np.triu(np.ones_like(h[0]) * 5, 1), "not symmetric"),
        (HESSIAN, lambda h: np.full_like(h, 1.7e308), "beyond 1e+15"),
        (LOSS, lambda x: x - 1e3, "is negative"),
    ],
)
def test_newton_sums_that_cannot_be_are_named(name, change, said):
    _, sums = answers("logistic", 1)
    assert said in impossible_sums(sums | {name: change(sums[name])}, cases=9)


@pytest.mark.parametrize(
    ("name", "change"),
    [(COUNT, lambda x: x - 100), (COUNT, lambda x: x + 1), (SQUARE, lambda x: x / 1e3), (SUM, lambda x: x * 1e3)],
)
def test_moments_that_cannot_be_are_named(name, change):
    moments, _ = answers("cox", 3)
    assert impossible_sums(moments | {name: change(moments[name])}, cases=9) != ""


@pytest.mark.parametrize(
    ("name", "change"), [(GRAM, lambda g: -np.abs(g)), (MOMENT, lambda m: m * 1e3), (CASES, lambda n: n + 5)]
)
def test_gram_sums_that_cannot_be_are_named(name, change):
    sums = ridge_sums(LAYOUT, rows_of("logistic", 4))
    assert impossible_sums(sums | {name: change(sums[name])}, cases=9) != ""
