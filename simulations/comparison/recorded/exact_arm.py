"""The honest baseline of deep prognosis: a linear Cox model on the frozen features and the record, fitted exactly.

What ``federation=newton`` finds in a few rounds of sums is what `fit_newton` finds in one process with one stratum per
center (tests/common/exact/test_newton.py), so a comparison needs no further federation for this arm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from client.center.center import Center
from client.training.observation import linear_rows
from common.backbones import load_backbone
from common.config.adapter import Adapter, LinearPart
from common.config.federation import NewtonFederation
from common.config.run import Run
from common.config.step import Step
from common.data.batch import CT, EHR, RECORD
from common.exact.columns import Layout, LinearModel, Rows
from common.exact.fit import fit_newton
from common.exact.objectives import LOSS, Cox
from common.exact.step import exact_part, state_of
from common.model.adapted import AdaptedModel
from common.protocol.messages import Order, State
from simulations.comparison.baselines import baseline_order
from simulations.comparison.patients import Observed, observe

PENALTIES = (3.0, 30.0, 300.0)  # tried for every fit; the validation cases choose
INPUTS = {CT: CT, EHR: RECORD}  # what the frozen encoder takes as it is, and the record itself in a report's place


def has_exact_form(step: Step) -> bool:
    """Whether the step is prognosis from inputs that a linear model can have."""
    return step.task.kind == "prognosis" and any(modality in INPUTS for modality in step.modalities)


def exact_step(step: Step) -> Step:
    """The step's cases, inputs and split under a linear Cox model: nothing inside or after the encoder is adapted.

    PET needs a trained stem before the encoder takes it, so it is left out.
    """
    return replace(
        step,
        task=replace(step.task, loss="cox"),
        modalities=[INPUTS[modality] for modality in step.modalities if modality in INPUTS],
        modes=[],
        methods=[],
        adapter=Adapter({"linear": LinearPart()}),
        federation=NewtonFederation(),
        training=replace(step.training, augment=False, draw={}),
    )


def observe_exact(
    run: Run, step: Step, *, trained: Sequence[Center], evaluated: Sequence[Center], base: str
) -> list[Observed]:
    """Every test patient of a prognosis step under the exact fit to the same centers' training cases."""
    linear = exact_step(step)
    start = AdaptedModel(load_backbone(run.backbone), linear, seed=run.seed).state()
    state = fit_exact(trained, baseline_order(run, linear, base=base, state=start))
    return observe(run, linear, state, evaluated, base=base)


def fit_exact(centers: Sequence[Center], order: Order) -> State:
    """The fitted state of an `exact_step`, every center a stratum; validation cases choose the penalty.

    Args:
        order: the step's first, with the state that its parts start from.
    """
    train: list[Rows] = []
    validation: list[Rows] = []
    model, _ = centers[0].model(order)  # one for all: a simulation's centers share a device
    for center in centers:
        for rows, name in ((train, "train"), (validation, "validation")):
            cases = center.case_set(order, name, model)
            if len(cases):
                rows.append(linear_rows(order, model, cases))
    return state_of(fit_chosen(model.exact_layout, train, validation, PENALTIES), exact_part(order.step)[0])


def fit_chosen(
    layout: Layout, train: Sequence[Rows], validation: Sequence[Rows], penalties: Sequence[float]
) -> LinearModel:
    """The stratified Cox fit, one entry per center, whose penalty the validation cases' partial likelihood prefers."""
    models = [fit_newton(Cox(), layout, train, penalty=penalty) for penalty in penalties]
    return min(models, key=lambda model: sum(_partial_nll(model, rows) for rows in validation))


def _partial_nll(model: LinearModel, rows: Rows) -> float:
    return float(Cox().sums(model.output(rows), rows.target, np.ones((1, 1)))[LOSS][0])
