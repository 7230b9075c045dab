"""Inversion: what a plain gradient shows of a crop, and what a noised one does not."""

import math

import pytest
import torch

from simulations.leakage.crops import SIDE, WIDTH, Encoder, crops
from simulations.leakage.inversion import measured, psnr, ssim


def test_a_crop_is_itself():
    (crop,) = crops(1, seed=3)[0]
    assert ssim(crop[None], crop[None]) == pytest.approx(1.0, abs=1e-4)
    assert psnr(crop[None], crop[None]) > 100


def test_psnr_of_a_constant_error():
    true = torch.zeros(1, 1, 2, 2, 2)
    true[..., 0] = 1.0
    assert psnr(true + 0.1, true) == pytest.approx(20.0, abs=1e-4)


def test_features_are_of_length_one_and_of_the_declared_width():
    features = Encoder()(crops(5, seed=1)[0])
    assert features.shape == (5, WIDTH) and torch.allclose(features.norm(dim=1), torch.ones(5))
    assert crops(5, seed=1)[0].shape == (5, 1, SIDE, SIDE, SIDE)


@pytest.mark.slow
def test_a_plain_gradient_shows_the_patient_and_a_noised_one_shows_less_than_a_strangers_crop():
    plain, noised = (measured(level, patients=1, public=100, steps=150) for level in (math.inf, 8.0))
    assert plain.is_better and plain.ssim > 0.6
    assert not noised.is_better and noised.ssim < noised.nearest_ssim
    assert plain.nearest_ssim == noised.nearest_ssim
