"""The exact head beside a trained decoder: what a federation would find, on the same test patients, ridge included."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from common.config.adapter import VoxelLinearPart
from common.model.adapted import AdaptedModel
from simulations.comparison.arms import run_job
from simulations.comparison.baselines import baseline_order
from simulations.comparison.beside import RECORDERS, REQUESTED, beside
from simulations.comparison.comparing import Job
from simulations.comparison.names import BLURS, EXACT, EXACT_RANDOM, FEDERATED, LEFT_OUT, ON_NETWORK, UNTRAINED
from simulations.comparison.paired import comparisons_of, patients_of
from simulations.comparison.patients import open_centers
from simulations.comparison.recorded import exact_voxels_arm
from simulations.comparison.recorded.exact_voxels_arm import exact_voxels_step, fit_voxels, has_exact_head
from simulations.comparison.recorded.rules_arm import RULES
from tests.helpers.small import federate, small_run

CENTERS = ["CHUM", "CHUP", "MDA"]
SMALL = VoxelLinearPart(levels=[3], voxels=200)


WINDOWED = {"window": [8, 8, 8], "overlap": 0.25, "mirrors": ["width"]}


@pytest.mark.parametrize("view", [{}, WINDOWED], ids=["whole", "windows"])
def test_the_arm_is_the_federation_with_the_ridge_that_it_chooses(small_centers, tmp_path, view):
    run = small_run(centers=CENTERS, steps=["tumour_ctpet"])
    step = exact_voxels_step(run.steps["tumour_ctpet"], SMALL)
    step = replace(step, view=replace(step.view, **view))
    run.steps = {step.name: replace(step, rounds=40, starts_from=None)}
    leader = federate(run, tmp_path / "run", small_centers)
    (chosen,) = leader.ledger.events("penalty_chosen")
    federated = leader.bank.get(leader.bank.head(step.writes or step.name))
    start = AdaptedModel(leader.backbone, step, seed=run.seed).state()
    found = fit_voxels(open_centers(small_centers, CENTERS), baseline_order(run, step, base=leader.base, state=start))
    assert set(chosen["tried"]) == {"10", "100", "1000"} and set(found) == set(federated)
    assert max(float((found[name] - federated[name]).abs().max()) for name in found) < 1e-9


def test_a_comparison_records_the_heads_for_segmentation(federated_cell, monkeypatch):
    monkeypatch.setattr(exact_voxels_arm, "RIDGES", replace(exact_voxels_arm.RIDGES, penalties=[]))
    run = small_run(centers=CENTERS, steps=["tumour_ct"], rounds=1)
    run.compare.arms, run.compare.draws, run.compare.random_backbone = ["blurs"], 50, False
    run.compare.pairs = []
    comparing, cell = federated_cell(run)
    for arm in (EXACT, BLURS, FEDERATED):
        run_job(comparing, Job(arm, cell))
    exact, blurs, deep = (patients_of(comparing, arm, "tumour_ct") for arm in (EXACT, BLURS, FEDERATED))
    assert [p.patient for p in exact] == [p.patient for p in blurs] == [p.patient for p in deep] and len(exact) >= 3
    assert float(exact[0].records[0]["truth"].sum()) == float(deep[0].records[0]["truth"].sum())
    sides = {(c.a, c.b) for c in comparisons_of(comparing)}
    assert {(FEDERATED, EXACT), (FEDERATED, BLURS), (EXACT, BLURS)} <= sides


def test_further_arms_are_there_on_request_alone():
    compare = small_run().compare
    assert EXACT in beside(compare) and not {BLURS, EXACT_RANDOM, *RULES} & set(beside(compare))
    compare.arms = sorted(REQUESTED)
    assert {BLURS, EXACT_RANDOM, *RULES} <= set(beside(compare)) and beside(compare)[-1] == UNTRAINED
    trained = {LEFT_OUT, *ON_NETWORK}
    assert set(RECORDERS) == {EXACT, *(arm for arms in REQUESTED.values() for arm in arms)} - trained


def test_crops_larger_than_the_window_have_an_exact_head_too():
    step = small_run().steps["tumour_ct"]
    assert has_exact_head(replace(step, view=replace(step.view, window=[8, 8, 8])))


def test_nothing_of_the_steps_own_adapter_is_left():
    step = exact_voxels_step(small_run().steps["tumour_ctpet"], SMALL)
    assert set(step.adapter.parts) == {"voxels"} and step.federation.kind == "newton" and not step.training.augment
    assert torch.tensor(step.federation.penalties).min() > 0
