"""What a federation is compared with: all data in one place, and every center alone, by the same loop.

Both train the same parts from the same start on the same samples for as many passes as the federation has rounds, and
keep the pass that their own validation cases choose. They keep their optimiser's state across passes and anneal the
learning rate, as anyone would who is not federated; ``reset_per_round`` switches that off for the identity test.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch

from client.center import Center
from client.data.hecktor import Case
from client.loop import optimizer_for
from common.config.schema import Run, Step
from common.model import AdaptedModel
from common.orders import Order, State
from common.tasks import build_task, pooled_metrics


class PooledCenter(Center):
    """Several centers' patients in one place: what a federation never has. Splits are the same as at each center."""

    def __init__(self, centers: Sequence[Center]):
        first = centers[0]
        super().__init__(replace(first.config, code=first.code if len(centers) == 1 else "ALL"))
        self.centers = list(centers)

    @cached_property
    def everyone(self) -> list[Case]:
        """All cases, in the order of the centers."""
        return [case for center in self.centers for case in center.everyone]


@dataclass
class Trained:
    """A baseline's outcome for one step."""

    state: State
    kept_pass: int
    validation: list[float | None]  # of the start and of every pass, larger is better
    batches: int

    @property
    def value(self) -> float | None:
        """The kept state's validation value."""
        return self.validation[self.kept_pass]


def train_pooled(center: Center, order: Order, *, reset_per_round: bool = False) -> Trained:
    """Train a step at one (pooled) center, starting from the order's state.

    Args:
        reset_per_round: a fresh optimiser each pass and no annealing: the federation's own schedule.
    """
    step = order.step
    model, task = center.model(order)
    optimizer = optimizer_for(model, step.training)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=max(step.rounds, 1))
    states: list[State] = [order.state]
    values = [_validate(center, order, model)]
    batches = 0
    for number in range(1, step.rounds + 1):
        if reset_per_round:
            optimizer = optimizer_for(model, step.training)
        fitted = center.fit(replace(order, round=number), model, task, optimizer=optimizer)
        batches += fitted.batches
        if not reset_per_round:
            schedule.step()
        states.append(model.state())
        is_looked_at = number % step.selection.every == 0 or number == step.rounds
        values.append(_validate(center, order, model) if is_looked_at else None)
    kept = _best(values)
    return Trained(states[kept], kept, values, batches)


def _validate(center: Center, order: Order, model: AdaptedModel) -> float | None:
    """The pass's validation value, larger is better."""
    task = build_task(order.step.task)
    cases = center.case_set(order, "validation", model)
    if len(cases) == 0:
        return None
    observed = center.observe(order, model, task, cases)
    metric = order.step.selection.metric or task.primary
    if metric == "loss":
        return -sum(loss for _, loss in observed) / len(observed)
    return pooled_metrics(task, [o for o, _ in observed], [case.center for case in cases.cases]).get(metric)


def _best(values: Sequence[float | None]) -> int:
    """The pass with the best value, the latest of equals; the last if none has one; 0 is the start."""
    scored = [(value, number) for number, value in enumerate(values) if value is not None]
    return max(scored)[1] if scored else len(values) - 1


def baseline_order(run: Run, step: Step, *, base: str, state: State) -> Order:
    """The order that a baseline trains on: the same as a federation's first."""
    return Order(
        step=step, seed=run.seed, round=0, backbone=run.backbone, base=base, split=run.data.split,
        skip_unreadable=run.data.skip_unreadable, state=state,
    )  # fmt: skip
