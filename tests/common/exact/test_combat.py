"""ComBat from moments against ComBat from rows, as neuroCombat 0.2.12 computes it, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import RoundFailed
from common.exact.columns import COUNT, SQUARE, SUM
from common.exact.combat import harmonized


def moments_of(x: np.ndarray) -> dict[str, np.ndarray]:
    return {COUNT: np.full(x.shape[1], float(len(x))), SUM: x.sum(axis=0), SQUARE: (x**2).sum(axis=0)}


def pooled_combat(x: np.ndarray, batch: np.ndarray) -> np.ndarray:
    """ComBat of all rows in one place, (n, F) with batches (n,): neuroCombat's formulas, by its own steps.

    Fit a mean for each batch, standardise, estimate location and scale of each, draw them by empirical Bayes in a loop
    over the standardised rows, take them out, put grand mean and pooled spread back.
    """
    n, names = len(x), np.unique(batch)
    design = (batch[:, None] == names[None, :]).astype(float)
    beta = np.linalg.solve(design.T @ design, design.T @ x)
    grand = (design.sum(axis=0) / n) @ beta
    pooled = ((x - design @ beta) ** 2).sum(axis=0) / n
    s = (x - grand) / np.sqrt(pooled)
    gamma_hat = np.linalg.solve(design.T @ design, design.T @ s)
    out = s.copy()
    for k, name in enumerate(names):
        own = s[batch == name]
        delta_hat = own.var(axis=0, ddof=1)
        bar, tau = gamma_hat[k].mean(), gamma_hat[k].var(ddof=1)
        m, v = delta_hat.mean(), delta_hat.var(ddof=1)
        a, b = (2 * v + m**2) / v, (m * v + m**3) / v
        g, d, change = gamma_hat[k], delta_hat, 1.0
        while change > 1e-4:
            g_new = (tau * len(own) * gamma_hat[k] + d * bar) / (tau * len(own) + d)
            d_new = (0.5 * ((own - g_new) ** 2).sum(axis=0) + b) / (len(own) / 2 + a - 1)
            change = max((abs(g_new - g) / g).max(), (abs(d_new - d) / d).max())
            g, d = g_new, d_new
        out[batch == name] = (own - g) / np.sqrt(d)
    return out * np.sqrt(pooled) + grand


@pytest.mark.parametrize("seed", range(5))
def test_moments_say_what_the_rows_say(seed):
    rng = np.random.default_rng(seed)
    sizes = {"A": 5, "B": 17, "C": 40}
    rows = {c: rng.normal(rng.normal(3, 1, 12), rng.uniform(0.5, 2, 12), (n, 12)) for c, n in sizes.items()}
    found = harmonized({c: moments_of(x) for c, x in rows.items()}, np.ones(12, bool))
    exact = pooled_combat(np.concatenate([*rows.values()]), np.repeat([*sizes], [*sizes.values()]))
    mine = np.concatenate([found[c].of(x) for c, x in rows.items()])
    np.testing.assert_allclose(mine, exact, atol=1e-9, rtol=0)


def test_a_small_example_by_hand():
    """Two centers, two features that vary alike in each: the priors are points, and location and scale the plain ones
    drawn together."""
    a = np.array([[1.0, 2.0], [3.0, 4.0], [2.0, 3.0]])
    b = a + 4
    found = harmonized({"A": moments_of(a), "B": moments_of(b)}, np.ones(2, bool))
    # grand means 4 and 5, pooled variance 2/3; standardised means -2 / sqrt(2/3) in A for both, so tau is 0; the
    # variance over n - 1 is 1 / (2/3) = 1.5 for both features: x -> (x - 2) / sqrt(1.5) + 4 in A
    np.testing.assert_allclose(found["A"].of(a)[:, 0], (a[:, 0] - 2) / np.sqrt(1.5) + 4)
    np.testing.assert_allclose(found["A"].of(a), found["B"].of(b))


def test_a_shift_between_centers_is_gone():
    rng = np.random.default_rng(0)
    rows = {c: rng.normal(size=(200, 6)) * scale + shift for c, scale, shift in (("A", 1, 0), ("B", 3, 5))}
    found = harmonized({c: moments_of(x) for c, x in rows.items()}, np.ones(6, bool))
    a, b = (found[c].of(x) for c, x in rows.items())
    assert np.abs(rows["A"].mean(axis=0) - rows["B"].mean(axis=0)).min() > 4
    assert np.abs(a.mean(axis=0) - b.mean(axis=0)).max() < 0.2, (
        "each shift is drawn a little to the features' common one"
    )
    assert np.abs(a.std(axis=0) / b.std(axis=0) - 1).max() < 0.1


@given(st.integers(0, 10_000))
def test_moments_of_what_was_harmonized_follow_from_the_raw_ones(seed):
    rng = np.random.default_rng(seed)
    rows = {c: rng.normal(size=(int(rng.integers(3, 9)), 3)) + rng.normal() for c in "AB"}
    for code, one in harmonized({c: moments_of(x) for c, x in rows.items()}, np.array([True, False, True])).items():
        told, exact = one.of_moments(moments_of(rows[code])), moments_of(one.of(rows[code]))
        for name in (COUNT, SUM, SQUARE):
            np.testing.assert_allclose(told[name], exact[name], atol=1e-8)
        np.testing.assert_array_equal(one.of(rows[code])[:, 1], rows[code][:, 1])  # no feature: left as it is


def test_a_constant_feature_stays_and_harms_no_other():
    """TRAPS 14: NaN for everything in two kept libraries."""
    rng = np.random.default_rng(1)
    rows = {c: rng.normal(size=(8, 4)) for c in "AB"}
    plain = harmonized({c: moments_of(x[:, 1:]) for c, x in rows.items()}, np.ones(3, bool))
    for x in rows.values():
        x[:, 0] = 7.3
    found = harmonized({c: moments_of(x) for c, x in rows.items()}, np.ones(4, bool))
    for code, x in rows.items():
        np.testing.assert_array_equal(found[code].of(x)[:, 0], x[:, 0])
        np.testing.assert_allclose(found[code].of(x)[:, 1:], plain[code].of(x[:, 1:]))


def test_what_cannot_be_harmonized_is_one_sentence():
    rng = np.random.default_rng(2)
    of = {n: moments_of(rng.normal(size=(n, 4))) for n in (1, 2, 9)}
    every = np.ones(4, bool)
    for few in (1, 2):
        with pytest.raises(RoundFailed, match=rf"3 training patients or more .* too few at HMR \({few}\)"):
            harmonized({"CHUM": of[9], "HMR": of[few]}, every)
    with pytest.raises(RoundFailed, match=r"one center \(CHUM\) have nothing to be harmonized with"):
        harmonized({"CHUM": of[9]}, every)
    with pytest.raises(RoundFailed, match="1 of the features vary"):
        harmonized({"CHUM": of[9], "MDA": moments_of(rng.normal(size=(9, 4)))}, np.array([True, False, False, False]))
