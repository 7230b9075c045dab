"""Exposure: a canary is remembered without noise, and ranks are those of candidates nobody trained on."""

import math

import pytest

from simulations.leakage.exposure import CANDIDATES, CHANCE, measured


@pytest.mark.slow
def test_an_adapter_without_noise_remembers_canaries_above_chance():
    found = measured(math.inf, canaries=8)
    assert found.most == math.log2(CANDIDATES + 1) == 8
    assert found.bits > CHANCE + 0.5 and found.canaries == 8 and 0 <= found.first <= 8


@pytest.mark.slow
def test_noise_that_drowns_everything_leaves_a_rank_by_chance():
    assert measured(0.05, canaries=4, rounds=2).bits < CHANCE + 1.5
