"""The honest baseline of a trained decoder: a linear model of every voxel on frozen features, fitted exactly.

One process fits it to the same training cases by the code that centers and server run, so it is the fit that
``federation=newton`` finds, its ridge and thresholds included (test_exact_voxels_arm.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from client.center.center import Center
from client.training.batches import Cases
from client.training.exact import exact_rows, score_sums
from common.backbones import load_backbone
from common.config.adapter import Adapter, VoxelLinearPart
from common.config.federation import NewtonFederation
from common.config.run import Run
from common.config.step import Step
from common.data.batch import volumes_of
from common.exact.columns import Rows, add
from common.exact.fit import fit_path
from common.exact.step import exact_part, objective_of, state_of
from common.exact.thresholds import ALL, MISSED, TRUE, best_thresholds
from common.model.adapted import AdaptedModel
from common.protocol.messages import Order, State
from server.learning.exact.choice import chosen
from simulations.comparison.baselines import baseline_order, pooled, validated
from simulations.comparison.patients import Observed, observe

FROZEN = VoxelLinearPart()  # raw values and the frozen model's finest levels
BLURRED = VoxelLinearPart(levels=[], blurs=[1.0, 2.0, 4.0])  # no frozen model at all
RIDGES = NewtonFederation(penalty=100.0, penalties=[10.0, 1000.0])  # summed validation scores choose


def has_exact_head(step: Step) -> bool:
    """Whether the step segments volumes; of crops larger than the window, voxels have what their windows say."""
    return step.task.kind == "segmentation" and bool(volumes_of(step.modalities))


def exact_voxels_step(step: Step, part: VoxelLinearPart) -> Step:
    """The step's cases, volumes and split under a linear model of every voxel: nothing of its own adapter is left."""
    return replace(
        step,
        modalities=list(volumes_of(step.modalities)),
        modes=[],
        methods=[],
        train_parts=["*"],
        adapter=Adapter({"voxels": part}),
        federation=RIDGES,
        training=replace(step.training, augment=False, draw={}),
    )


def observe_exact_voxels(
    run: Run, step: Step, part: VoxelLinearPart, *, trained: Sequence[Center], evaluated: Sequence[Center], base: str
) -> list[Observed]:
    """Every test patient of a segmentation step under the exact head, fitted to the same centers' training cases."""
    exact = exact_voxels_step(step, part)
    start = AdaptedModel(load_backbone(run.backbone), exact, seed=run.seed).state()
    state = fit_voxels(trained, baseline_order(run, exact, base=base, state=start))
    return observe(run, exact, state, evaluated, base=base)


def fit_voxels(centers: Sequence[Center], order: Order) -> State:
    """The fitted state of an `exact_voxels_step`, with the ridge that the validation cases prefer."""
    model, _ = centers[0].model(order)  # one for all: a simulation's centers share a device
    spec, place = order.step.federation, pooled(centers)
    sets = [cases for center in centers if len(cases := center.case_set(order, "train", model))]
    scores, states = {}, states_of(order, model, sets)
    for penalty, state in states.items():
        model.load(state)
        scores[penalty] = validated(place, replace(order, state=state), model)
    return states[chosen(scores, otherwise=spec.penalty)]


def states_of(order: Order, model: AdaptedModel, sets: Sequence[Cases]) -> dict[float, State]:
    """Ridge -> its exact fit to the training cases of several places, with thresholds from histograms of their scores.

    Args:
        sets: each place's training cases, at least one.
    """
    spec, part, objective = order.step.federation, exact_part(order.step)[0], objective_of(order.step)
    assert objective is not None
    rows: list[Rows] = [exact_rows(order, model, cases, minimum=1).rows for cases in sets]
    found = {}
    for penalty, fitted in fit_path(objective, model.exact_layout, rows, [spec.penalty, *spec.penalties]).items():
        state = state_of(fitted, part)
        model.load(state)
        asked = replace(order, state=state)
        scores = add(score_sums(asked, model, cases, minimum=1) for cases in sets)
        thresholds = best_thresholds(scores[TRUE], scores[ALL], missed=scores[MISSED])
        found[penalty] = state | {f"{part}/bias": state[f"{part}/bias"] - torch.from_numpy(thresholds)}
    return found
