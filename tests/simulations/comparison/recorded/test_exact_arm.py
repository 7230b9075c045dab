"""The Newton arm of every comparison is what a real federation with federation=newton ends with."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from common.config.step import Step
from common.config.task import PrognosisTask
from common.data.batch import RECORD
from common.exact.columns import Layout, plain_rows
from common.exact.fit import fit_newton
from common.exact.objectives import Cox
from common.model.adapted import AdaptedModel
from simulations.comparison import arms
from simulations.comparison.arms import run_job
from simulations.comparison.baselines import baseline_order
from simulations.comparison.comparing import Job
from simulations.comparison.names import EXACT, FEDERATED
from simulations.comparison.paired import compare_arms, patients_of
from simulations.comparison.patients import open_centers
from simulations.comparison.recorded.exact_arm import PENALTIES, exact_step, fit_chosen, fit_exact, has_exact_form
from tests.helpers.small import federate, small_run

CENTERS = ["CHUM", "CHUP", "MDA"]


def relapse_run():
    run = small_run(centers=CENTERS, steps=["relapse"])
    run.steps["relapse"].modalities = ["CT", "EHR"]
    return run


def test_only_prognosis_from_frozen_inputs_has_an_exact_form():
    assert has_exact_form(Step(task=PrognosisTask(), modalities=["CT", "PET", "EHR"]))
    assert not has_exact_form(Step(task=PrognosisTask(), modalities=["PET"]))
    assert not has_exact_form(small_run().steps["tumour_ct"])
    assert exact_step(Step(task=PrognosisTask(), modalities=["CT", "PET", "EHR"])).modalities == ["CT", RECORD]


def test_the_arm_is_the_federation_with_the_penalty_that_validation_chose(small_centers, tmp_path):
    run = relapse_run()
    step = exact_step(run.steps["relapse"])
    federations = {}
    for penalty in PENALTIES:
        asked = relapse_run()
        asked.steps = {step.name: replace(step, federation=replace(step.federation, penalty=penalty), rounds=40)}
        leader = federate(asked, tmp_path / f"{penalty:g}", small_centers)
        federations[penalty] = leader.bank.get(leader.bank.head(step.name))
    start = AdaptedModel(leader.backbone, step, seed=run.seed).state()
    order = baseline_order(run, step, base=leader.base, state=start)
    found = fit_exact(open_centers(small_centers, CENTERS), order)
    same = [p for p, state in federations.items() if all(torch.allclose(state[k], found[k], atol=1e-9) for k in found)]
    assert len(same) == 1 and set(found) == set(federations[same[0]])


@pytest.mark.parametrize(("signal", "chosen"), [(True, 0.01), (False, 1000.0)])
def test_held_out_cases_choose_the_penalty(signal, chosen):
    rng = np.random.default_rng(3)

    def rows(n: int):
        x = rng.normal(size=(n, 6))
        hazard = np.exp(1.5 * x[:, 0]) if signal else np.ones(n)
        return plain_rows(x, np.stack([rng.exponential(1 / hazard), np.ones(n)], axis=1))

    layout = Layout(tuple("abcdef"))
    train, held_out = [rows(60), rows(60)], [rows(200)]
    model = fit_chosen(layout, train, held_out, [0.01, 1000.0])
    assert np.array_equal(model.weight, fit_newton(Cox(), layout, train, penalty=chosen).weight)


def test_a_comparison_records_the_arm_for_prognosis_and_for_segmentation(federated_cell):
    run = small_run(centers=CENTERS, steps=["relapse", "tumour_ct"], rounds=1)
    comparing, cell = federated_cell(run)
    for arm in (EXACT, FEDERATED):
        run_job(comparing, Job(arm, cell))
    heads, decoders = (patients_of(comparing, arm, "tumour_ct") for arm in (EXACT, FEDERATED))
    assert [p.patient for p in heads] == [p.patient for p in decoders] and len(heads) >= 3
    exact, deep = (patients_of(comparing, arm, "relapse") for arm in (EXACT, FEDERATED))
    assert [p.patient for p in exact] == [p.patient for p in deep] and len(exact) >= 3
    assert compare_arms(comparing, (FEDERATED, "relapse"), (EXACT, "relapse"), "c_index").difference.n == len(exact)


def test_a_baseline_starts_from_what_fits_of_the_step_before_it():
    start = {"fusion/w": torch.zeros(2, 4), "image/w": torch.zeros(3)}
    before = {"relapse_ct": {"fusion/w": torch.ones(2, 2), "image/w": torch.ones(3), "gone/w": torch.ones(1)}}
    work = arms.StepWork(small_run(), Step(name="relapse_pet", starts_from="relapse_ct"), start, "", [], [], {})
    found = arms.start_of(work, before)
    assert torch.equal(found["fusion/w"], torch.zeros(2, 4)) and torch.equal(found["image/w"], torch.ones(3))
    assert set(found) == set(start)
