"""Secure sums under attack: what is opened is the plain mean, and a patient is harder to see in it."""

import math

import numpy as np
import torch

from simulations.leakage import membership
from simulations.leakage.sums import CENTERS, opened_mean, opened_state


def test_what_is_opened_is_the_plain_mean_to_a_millionth():
    parts = np.random.default_rng(0).normal(size=(CENTERS, 40))
    assert np.abs(opened_mean(list(parts)) - parts.mean(axis=0)).max() < 1e-6
    states = [{"b": torch.full((2, 3), float(n)), "a": torch.tensor([n / 3])} for n in range(3)]
    found = opened_state(states)
    assert torch.allclose(found["b"], torch.ones(2, 3), atol=1e-6) and torch.allclose(found["a"], torch.tensor([1 / 3]))


def test_a_head_of_seven_centers_gives_ones_patients_away_a_little_less():
    alone, summed = (
        membership.measured(math.inf, patients=40, columns=16, models=10, centers=centers) for centers in (1, CENTERS)
    )
    assert not alone.is_sum and summed.is_sum and alone.others == summed.others
    assert 0.5 < summed.auc < alone.auc
