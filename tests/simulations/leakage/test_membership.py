"""Membership: rates by hand, heads without noise give members away, and noise takes that back."""

import math

import numpy as np
import pytest

from simulations.leakage.membership import measured, rates


def test_a_rate_is_the_share_of_members_above_what_so_many_others_exceed():
    others, members = np.arange(100.0), np.array([98.5, 99.5, 200.0, 3.0])
    found = rates(8.0, members, others)
    assert found.caught[0.01] == 0.75 and found.others == 100  # above 98, which one of a hundred exceeds


def test_too_few_others_measure_no_small_rate():
    found = rates(8.0, np.ones(10), np.zeros(999))
    assert found.caught == {0.001: None, 0.01: 1.0}
    assert rates(8.0, np.ones(10), np.zeros(1000)).caught[0.001] == 1.0


def test_equal_scores_are_chance():
    assert rates(8.0, np.zeros(5), np.zeros(7)).auc == 0.5


@pytest.fixture(scope="module")
def by_level():
    return {level: measured(level, patients=60, columns=24, models=24) for level in (math.inf, 3.0)}


def test_heads_without_noise_give_members_away(by_level):
    assert by_level[math.inf].auc > 0.7


def test_noise_brings_the_attacker_near_to_chance_and_below_what_epsilon_allows(by_level):
    """At epsilon 3 and delta 1 / 300 the rate of hits is at most e^3 times that of false alarms, and delta."""
    assert by_level[3.0].auc < min(0.65, by_level[math.inf].auc - 0.1)
    caught = measured(1.0, patients=60, columns=24, models=24).caught[0.01]
    assert caught is None or caught <= math.e * 0.01 + 1 / 300 + 0.03  # sampling: 700 members


def test_the_same_seed_is_the_same_attack(by_level):
    assert measured(3.0, patients=60, columns=24, models=24) == by_level[3.0]
