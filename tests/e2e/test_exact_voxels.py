"""A segmentation fitted exactly over the real messages: equal to the pooled fit, and better than nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from client.center.center import Center
from client.training.exact import exact_rows, score_sums
from client.training.observation import observe
from common.config.load import compose_run
from common.config.run import Run
from common.data.modality_sets import validation_mode
from common.exact.columns import add
from common.exact.fit import fit_path
from common.exact.step import exact_part, objective_of, state_of
from common.exact.thresholds import ALL, MISSED, TRUE, best_thresholds
from common.protocol.messages import State
from common.tasks import merge_sums
from server.coordinator import Coordinator
from server.run.folder import RunFolder
from simulations.comparison.baselines import pooled as pooled_place
from simulations.virtual.centers import data_roots, write_centers
from tests.helpers.small import VIEW, adapters, federate, open_all

CENTERS = ["CHUM", "CHUP", "MDA"]
STS7 = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "sts7"


def voxel_run(*overrides: str) -> Run:
    chosen = ["curriculum=smoke", "backbone=tiny", "name=small", "adapter@steps.tumour_ct.adapter=exact_voxels"]
    run = compose_run([*chosen, "federation@steps.tumour_ct.federation=newton", *overrides])
    run.data.split.folds, run.data.split.validation = 3, 0.34
    run.steps = {"tumour_ct": run.steps["tumour_ct"]}
    step = run.steps["tumour_ct"]
    step.view, step.centers, step.evaluate_at, step.modalities = VIEW, list(CENTERS), list(CENTERS), ["CT", "PET"]
    step.rounds, step.training.augment = 40, False
    part = step.adapter.parts["voxels"]
    part.voxels, part.levels, part.blurs = 300, [3], [1.0]
    return run


def pooled_states(leader: Coordinator, files: dict[str, Path], penalties: list[float]) -> dict[float, State]:
    """The fit of all centers' rows in one process, for each ridge, with the thresholds of their summed histograms."""
    (step,) = leader.run.steps.values()
    (started,) = leader.ledger.events("step_started", step=step.name)
    order, rows, centers = replace(leader.order(step), round=0), [], []
    for code in started["centers"]:
        center = Center.open(files[code])
        model, _ = center.model(order)
        cases = center.case_set(order, "train", model)
        rows.append(exact_rows(order, model, cases, minimum=1).rows)
        centers.append((center, cases))
    objective = objective_of(step)
    assert objective is not None
    found = {}
    for penalty, fitted in fit_path(objective, model.exact_layout, rows, penalties).items():
        state = state_of(fitted, exact_part(step)[0])
        scores = []
        for center, cases in centers:
            model, _ = center.model(replace(order, state=state))
            scores.append(score_sums(order, model, cases, minimum=1))
        total = add(scores)
        state["voxels/bias"] -= torch.from_numpy(best_thresholds(total[TRUE], total[ALL], missed=total[MISSED]))
        found[penalty] = state
    return found


def furthest(a: State, b: State) -> float:
    return max(float((a[name] - b[name]).abs().max()) for name in a)


def test_federated_voxels_are_the_pooled_fit(tmp_path, small_centers):
    leader = federate(voxel_run(), tmp_path / "run", small_centers)
    penalty = leader.run.steps["tumour_ct"].federation.penalty
    pooled = pooled_states(leader, small_centers, [penalty])[penalty]
    assert furthest(leader.bank.get(leader.bank.head("tumour_ct")), pooled) < 1e-9
    assert not leader.ledger.events("penalty_chosen"), "nothing was there to choose from"


def test_a_federation_chooses_the_ridge_that_pooled_validation_chooses(tmp_path, small_centers):
    penalties = [0.1, 10.0, 1e5]
    run = voxel_run("steps.tumour_ct.federation.penalties=[0.1,1e5]")
    leader = federate(run, tmp_path / "run", small_centers)
    step, pooled = leader.run.steps["tumour_ct"], pooled_states(leader, small_centers, penalties)
    whole = pooled_place(open_all({code: small_centers[code] for code in CENTERS}))
    worth = {}
    for penalty, state in pooled.items():
        model, task = whole.model(order := replace(leader.order(step), state=state, mode=validation_mode(step)))
        cases = whole.case_set(order, "validation", model)
        seen = [record for record, _ in observe(order, model, task, cases)]
        worth[penalty] = task.metrics(merge_sums([task.sums([record]) for record in seen]))[task.primary]
    (chosen,) = leader.ledger.events("penalty_chosen")
    assert chosen["metric"] == "dsc_agg" and set(chosen["tried"]) == {"0.1", "10", "100000"}
    assert chosen["tried"] == {f"{p:g}": pytest.approx(v, abs=1e-9) for p, v in worth.items()}
    assert chosen["penalty"] == max(worth, key=lambda p: (worth[p], p)) and len(set(worth.values())) == 3
    assert furthest(leader.bank.get(leader.bank.head("tumour_ct")), pooled[chosen["penalty"]]) < 1e-9
    asked = {event["subset"] for event in leader.ledger.events("scored")[:-1] if event["step"] == "tumour_ct"}
    assert "validation" in asked
    before = len(leader.ledger.events("newton_round")), adapters(leader)
    again = federate(run, tmp_path / "run", small_centers)
    assert (len(again.ledger.events("newton_round")), adapters(again)) == before


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_real_ct_and_pet_of_seven_centers_are_fitted_as_if_they_were_one(tmp_path):
    if not STS7.is_dir():
        pytest.skip("the real sts7 cohort is not beside this checkout (../shared/data/sts7)")
    small = [f"steps.tumour_exact.view.{name}=[40,32,32]" for name in ("size", "window")]
    small += ["steps.tumour_exact.view.spacing_mm=[6,6,6]", "steps.tumour_exact.adapter.parts.voxels.voxels=500"]
    run = compose_run(["curriculum=sts7_exact", f"data.root={STS7}", "name=sts7", "compare.folds=[0]", *small])
    files, _ = write_centers(run, RunFolder(tmp_path / "centers"), data_roots(run))
    leader = federate(run, tmp_path / "run", files)
    pooled = pooled_states(leader, files, [10.0, 100.0, 1000.0])
    (chosen,) = leader.ledger.events("penalty_chosen")
    found = leader.bank.get(leader.bank.head("tumour_exact"))
    assert furthest(found, pooled[chosen["penalty"]]) < 1e-9
    rounds = leader.ledger.events("newton_round", step="tumour_exact")
    assert max(traffic["up"] for event in rounds for traffic in event["bytes"].values()) < 500_000
