"""A segmentation fitted exactly over the real messages: equal to the pooled fit, and better than nothing."""

from __future__ import annotations

from dataclasses import replace

import torch

from client.center.center import Center
from client.training.exact import exact_rows, score_sums
from common.config.load import compose_run
from common.config.run import Run
from common.exact.columns import add
from common.exact.fit import fit_newton
from common.exact.step import exact_part, objective_of, state_of
from common.exact.voxels import ALL, MISSED, TRUE, best_thresholds
from tests.helpers.small import VIEW, federate

CENTERS = ["CHUM", "CHUP", "MDA"]


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


def test_federated_voxels_are_the_pooled_fit(tmp_path, small_centers):
    leader = federate(voxel_run(), tmp_path / "run", small_centers)
    step = leader.run.steps["tumour_ct"]
    order, rows, centers = replace(leader.order(step), round=0), [], []
    for code in CENTERS:
        center = Center.open(small_centers[code])
        model, _ = center.model(order)
        cases = center.case_set(order, "train", model)
        rows.append(exact_rows(order, model, cases, minimum=1).rows)
        centers.append((center, cases))
    fitted = fit_newton(objective_of(step), model.exact_layout, rows, penalty=step.federation.penalty)
    pooled = state_of(fitted, exact_part(step)[0])
    scores = []
    for center, cases in centers:
        model, _ = center.model(replace(order, state=pooled))
        scores.append(score_sums(order, model, cases, minimum=1))
    total = add(scores)
    pooled["voxels/bias"] -= torch.from_numpy(best_thresholds(total[TRUE], total[ALL], missed=total[MISSED]))
    found = leader.bank.get(leader.bank.head("tumour_ct"))
    assert max(float((found[name] - pooled[name]).abs().max()) for name in pooled) < 1e-9
