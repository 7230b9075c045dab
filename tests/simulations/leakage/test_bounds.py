"""Lower bounds of epsilon: hand-made values, and never above the truth of a mechanism that is known."""

import math

import numpy as np
import pytest

from common.privacy.accounting import Release, epsilon
from simulations.leakage.bounds import LARGEST, counted_bound, gaussian_epsilon, normal_bound


@pytest.mark.parametrize(("noise", "delta"), [(1.0, 1e-5), (0.5, 1e-3), (3.0, 1e-3)])
def test_two_normals_apart_are_a_gaussian_mechanism(noise, delta):
    assert gaussian_epsilon(1 / noise, delta) == pytest.approx(epsilon([Release(noise)], delta), rel=0.01)


def test_nothing_apart_is_nothing():
    assert gaussian_epsilon(0.0, 1e-3) == 0.0


def test_who_is_always_right_shows_no_more_than_that_many_guesses_can():
    """Two thirds of 63 canaries guessed, all right: (1 / (1 + exp(-epsilon))) ** 42 = 0.05 at delta 0."""
    took_part = np.arange(63) < 31
    found = counted_bound(took_part.astype(float), took_part, 0.0, confidence=0.95)
    chance = 0.05 ** (1 / 42)
    assert found == pytest.approx(math.log(chance / (1 - chance)), rel=1e-6)


def test_a_delta_weakens_what_guesses_show():
    took_part = np.arange(64) < 32
    assert counted_bound(took_part.astype(float), took_part, 1e-3) < counted_bound(
        took_part.astype(float), took_part, 0.0
    )


def test_a_coin_shows_nothing():
    took_part = np.arange(64) % 2 == 0
    assert counted_bound(np.zeros(64), took_part, 0.0) == 0.0


@pytest.mark.parametrize("noise", [0.7, 2.0])
def test_bounds_of_one_gaussian_hold_nearly_always(noise):
    """Fifty independent runs: at 97.5 % more than six above the truth would be one in a thousand."""
    truth, above = epsilon([Release(noise)], 1e-3), [0, 0]
    for seed in range(50):
        rng = np.random.default_rng(seed)
        took_part = rng.random(256) < 0.5
        scores = took_part + noise * rng.normal(size=256)
        for place, bound in enumerate((counted_bound, normal_bound)):
            above[place] += bound(scores, took_part, 1e-3) > truth * 1.001
    assert max(above) <= 6


def test_scores_without_any_spread_give_everything_away():
    took_part = np.arange(8) < 4
    assert normal_bound(took_part.astype(float), took_part, 1e-3) == LARGEST
