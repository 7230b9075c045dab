"""Trivial rules: nobody trained them, they see SUV whatever the step's view says, and are scored like every arm."""

from __future__ import annotations

import pytest
import torch

from common.config.load import compose_run
from common.model.adapted import AdaptedModel
from simulations.comparison.patients import dice_of, open_centers
from simulations.comparison.recorded.rules_arm import RULES, Seen, above_share, has_rules, in_ellipsoid, observe_rule
from tests.helpers.small import VIEW, federate, small_run

CENTERS = ["CHUM", "CHUP"]


@pytest.fixture(scope="module")
def leader(small_centers, tmp_path_factory):
    """A step of one structure in CT and PET, never trained; the small cohort's tumors have SUV 5 and more."""
    run = small_run(centers=CENTERS, steps=["tumour_ctpet"], rounds=0)
    step = run.steps["tumour_ctpet"]
    step.task = compose_run(["curriculum=sts7_exact"]).steps["tumour_exact"].task
    step.starts_from, step.view.pet = None, "zscore"
    return federate(run, tmp_path_factory.mktemp("run"), small_centers)


def dice(leader, files, rule) -> list[float]:
    run, step = leader.run, leader.run.steps["tumour_ctpet"]
    start = AdaptedModel(leader.backbone, step, seed=run.seed).state()
    found = observe_rule(run, step, rule, evaluated=open_centers(files, CENTERS), base=leader.base, start=start)
    return [score for one in found for score in dice_of(step, one.observation).values()]


def test_a_threshold_between_background_and_tumor_finds_it_whatever_the_view_is_scaled_to(leader, small_centers):
    values = dice(leader, small_centers, RULES["SUV above 4"])
    node = 2 * 64 / (64 + 64 + 18)  # the node's 18 voxels are as bright, and no GTV of this task
    assert len(values) >= 3 and all(value == pytest.approx(1.0) or value == pytest.approx(node) for value in values)
    assert max(dice(leader, small_centers, lambda seen: seen.suv > 24.0)) == 0.0


def test_a_share_is_of_the_largest_value():
    suv = torch.tensor([[[1.0, 4.0, 10.0]]])
    assert above_share(Seen(suv), share=0.41).tolist() == [[[False, False, True]]]


def test_the_ellipsoid_is_what_the_crop_just_holds_and_leaves_out_what_is_no_soft_tissue():
    suv = torch.full((8, 8, 8), 2.0)
    found = in_ellipsoid(Seen(suv), threshold=1.0)
    assert found[4, 4, 0] and found[0, 4, 4] and not found[0, 0, 0] and not found[0, 4, 0]
    assert torch.equal(found, found.flip(0)) and not in_ellipsoid(Seen(suv), threshold=2.0).any()
    hu = torch.zeros(8, 8, 8)
    hu[:4], hu[4:, :4] = -900.0, 700.0
    tissue = in_ellipsoid(Seen(suv, hu), threshold=1.0)
    assert torch.equal(tissue[4:, 4:], found[4:, 4:]) and not tissue[:4].any() and not tissue[4:, :4].any()


def test_rules_see_the_tissue_in_hounsfield_units(leader, small_centers):
    seen = []
    dice(leader, small_centers, lambda one: seen.append(one) or one.suv > 1)
    low, high = leader.run.steps["tumour_ctpet"].view.ct_hu
    assert seen and all(one.hu.min() >= low - 0.1 and one.hu.max() <= high + 0.1 for one in seen)
    assert 100 < float(seen[0].hu[seen[0].suv > 5].mean()) < 300  # the small cohort's tumors have 200 HU


def test_rules_stand_beside_steps_with_one_structure_and_a_pet(leader):
    one, two = leader.run.steps["tumour_ctpet"], small_run(steps=["tumour_ctpet"]).steps["tumour_ctpet"]
    assert has_rules(one) and not has_rules(two)
    assert not has_rules(small_run(steps=["tumour_ct"]).steps["tumour_ct"]) and VIEW.size == VIEW.window
