"""An acceptance: half of each cohort aside by a hash, the same head for every arm, opened once."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from client.data.layouts import find_cases
from common.backbones.shapes import CONFIGS, ShapesUnet
from common.config.adapter import VoxelLinearPart
from common.config.run import BackboneSpec
from common.errors import ConfigError, DataError
from simulations.comparison.recorded import exact_voxels_arm
from simulations.comparison.recorded.exact_voxels_arm import exact_voxels_step
from simulations.pretraining.acceptance import accept as accepting
from simulations.pretraining.acceptance import arms as arms_module
from simulations.pretraining.acceptance.accept import Asked, accept, compared
from simulations.pretraining.acceptance.arms import AT_RANDOM, PRETRAINED, WITHOUT, arms, at_random
from simulations.pretraining.acceptance.cohorts import parted
from tests.helpers.small import small_run


@pytest.fixture
def cohort(small_root, tmp_path):
    step = exact_voxels_step(small_run(steps=["tumour_ctpet"]).steps["tumour_ctpet"], VoxelLinearPart(voxels=100))
    return parted("small", step, find_cases(small_root), tmp_path / "cache")


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(5)
    path = tmp_path / "shapes.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in ShapesUnet(CONFIGS["small"]).state_dict().items()}, path)
    return path


def test_half_is_set_aside_and_nobody_is_on_two_sides(cohort, small_root):
    fitted, trained, choosing, aside = (
        {case.patient for case in part.cases} for part in (cohort.fitted, cohort.trained, cohort.choosing, cohort.aside)
    )
    everyone = {case.patient for case in find_cases(small_root)}
    assert fitted | aside == everyone and not fitted & aside and trained | choosing == fitted and not trained & choosing
    assert len(aside) == len(everyone) // 2 and len(choosing) == -(-len(fitted) // 3)


def test_too_few_cases_are_refused(cohort, small_root, tmp_path):
    with pytest.raises(DataError, match="5 usable cases"):
        parted("five", cohort.step, find_cases(small_root)[:5], tmp_path)


def test_random_weights_have_statistics_of_shapes_and_are_the_same_each_time():
    net, again = at_random(3, "small", side=16), at_random(3, "small", side=16)
    fresh = ShapesUnet(CONFIGS["small"])
    named = dict(net.named_buffers())
    assert all(torch.equal(value, dict(again.named_buffers())[name]) for name, value in named.items())
    means = [name for name in named if name.endswith("running_mean")]
    assert means and all(not torch.equal(named[name], dict(fresh.named_buffers())[name]) for name in means)
    assert not net.train().stages[0][0][1].training


def test_every_arm_scores_the_patients_that_are_set_aside(cohort, weights, monkeypatch):
    monkeypatch.setattr(arms_module, "DRAWS", (0,))
    monkeypatch.setattr(arms_module, "RIDGES", replace(exact_voxels_arm.RIDGES, penalties=[]))
    found = {name: arm(cohort) for name, arm in arms(BackboneSpec("shapes", "small", str(weights))).items()}
    assert set(found) == {PRETRAINED, AT_RANDOM, WITHOUT}
    for dice in found.values():
        assert dice.shape == (len(cohort.aside),) and np.nanmax(dice) <= 1 and np.nanmean(dice) > 0.3
    assert not np.array_equal(found[PRETRAINED], found[WITHOUT])


def test_differences_are_paired_and_an_undefined_patient_is_no_part_of_them():
    scored = {PRETRAINED: [0.6, 0.8, float("nan"), 0.7], AT_RANDOM: [0.5, 0.6, 0.1, 0.6], WITHOUT: [0.7, 0.8, 0.2, 0.7]}
    random, without = compared("small", scored)
    assert (random["value"], random["n"]) == (pytest.approx(0.4 / 3), 3)
    assert random["low"] == pytest.approx(0.1) and random["high"] == pytest.approx(0.2)
    assert without["value"] == pytest.approx(-0.1 / 3) and without["high"] == pytest.approx(0.0)


@pytest.mark.parametrize(("gain", "accepted"), [(0.1, True), (0.0, False)])
def test_it_is_opened_once_and_tells_again(tmp_path, weights, monkeypatch, gain, accepted):
    opened = []

    def arm(value):
        return lambda cohort: opened.append(cohort) or np.linspace(0.5, 0.6, 8) + value

    monkeypatch.setattr(accepting, "arms", lambda spec: {PRETRAINED: arm(gain), AT_RANDOM: arm(0), WITHOUT: arm(0.05)})
    monkeypatch.setattr(accepting, "_cohorts", lambda asked, out: {"one": lambda: "one", "two": lambda: "two"})
    asked = Asked(weights, "small", tmp_path, (7,), 0.1)
    found = accept(asked, tmp_path / "out", say=lambda line: None)
    assert found["accepted"] is accepted and opened == ["one"] * 3 + ["two"] * 3
    assert accept(asked, tmp_path / "out", say=lambda line: None) == found and len(opened) == 6
    assert json.loads((tmp_path / "out" / "acceptance.json").read_text()) == found
    with pytest.raises(ConfigError, match="another phantoms"):
        accept(replace(asked, phantoms=(8,)), tmp_path / "out", say=lambda line: None)
