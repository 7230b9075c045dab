"""What a federation is compared with: all data in one place, and every center alone, by the same loop.

Both train the same parts from the same start on the same samples for as many passes as the federation has rounds, and
keep the pass that their own validation cases choose; of a step with a budget, for as many passes as spend it there.
The learning rate anneals where the step says so, in every arm. They keep their optimiser's state across passes, as
anyone would who is not federated, unless the step says ``training.moments=fresh``; ``reset_per_round`` switches that
off for the identity test.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from client.center.center import Center
from client.training.batches import Cases
from client.training.job import prepare
from client.training.loop import fit
from client.training.observation import observe
from client.training.optimizer import learning_rate, optimizer_for
from common.config.limits.budget import with_rounds
from common.config.options import FRESH
from common.config.run import Run
from common.config.step import Step, is_validated
from common.data.modality_sets import validation_mode
from common.model.adapted import AdaptedModel
from common.protocol.messages import Order, State, Sums
from common.tasks import Observation, Task, build_task, pooled_metrics
from server.learning.selection import Score, best, score_of


def pooled(centers: Sequence[Center]) -> Center:
    """Several centers' patients in one place: what a federation never has. Splits are the same as at each center."""
    first = centers[0].config
    code = first.code if len(centers) == 1 else "ALL"
    return Center(replace(first, code=code), members=centers)


class Place(Protocol):
    """What a job is prepared from: a `Center`, or a simulation's center whose cases are encoded already."""

    code: str

    def model(self, order: Order) -> tuple[AdaptedModel, Task]:
        """The step's model with the order's state, and its task."""

    def case_set(self, order: Order, name: str, model: AdaptedModel) -> Cases:
        """The prepared cases of one part of the order's split."""

    def label_sums(self, order: Order) -> Sums:
        """The task's counts over the training cases' labels."""


@dataclass
class Trained:
    """A baseline's outcome for one step."""

    state: State
    best_pass: int
    validation: list[float | None]  # of every pass, larger is better
    batches: int  # optimizer steps in a row
    cases: int  # seen, repetitions counted
    value: float | None = None  # of the best state


def train_pooled(center: Place, order: Order, *, reset_per_round: bool = False) -> Trained:
    """Train a step at one (pooled) center, starting from the order's state.

    Args:
        reset_per_round: a fresh optimiser each pass, as the federation has it.
    """
    step = order.step
    reset_per_round |= step.training.moments == FRESH
    order = order if order.known else replace(order, known=center.label_sums(order))
    model, task = center.model(order)
    step = with_rounds(step, [len(center.case_set(order, "train", model))])
    order = replace(order, step=step)
    optimizer = optimizer_for(model, step)
    states: list[State] = [order.state]
    scores = [validated(center, order, model) if step.rounds > 0 else None]
    batches = seen = 0
    for number in range(1, step.rounds + 1):
        if reset_per_round:
            model.train_in_round(number)
            optimizer = optimizer_for(model, step, number)
        else:
            optimizer.param_groups[0]["lr"] = learning_rate(step, number)
        cases = center.case_set(order, "train", model)
        job = prepare(replace(order, round=number), model, task, cases, code=center.code, optimizer=optimizer)
        fitted = fit(job)
        batches, seen = batches + fitted.batches, seen + fitted.cases
        states.append(model.state())
        scores.append(validated(center, order, model) if is_validated(step, number) else None)
    number = best(scores)
    values = [None if score is None else score.value for score in scores]
    return Trained(states[number], number, values[1:], batches, seen, values[number])


def validated(center: Place, order: Order, model: AdaptedModel) -> Score | None:
    """What the step's validation rule says about a model; None without validation cases."""
    task = build_task(order.step.task)
    cases = center.case_set(order, "validation", model)
    if len(cases) == 0:
        return None
    mode = validation_mode(order.step)
    observed = observe(replace(order, mode=mode), model, task, cases)
    if not observed:
        return None
    return selection_score(order.step, observed, [cases.cases[i].center for i in cases.having(mode)])


def selection_score(step: Step, observed: Sequence[tuple[Observation, float]], centers: Sequence[str]) -> Score | None:
    """What the step's validation rule says about validation cases.

    Args:
        observed: a record and a loss per case.
        centers: one label per case; pairs of cases are formed within centers.
    """
    task = build_task(step.task)
    metric = step.selection.metric or task.primary
    loss = sum(loss for _, loss in observed) / len(observed)
    if metric == "loss":
        return score_of(metric, loss, loss)
    return score_of(metric, pooled_metrics(task, [o for o, _ in observed], centers).get(metric), loss)


def baseline_order(run: Run, step: Step, *, base: str, state: State) -> Order:
    """The order that a baseline trains on: the same as a federation's first."""
    return Order(
        step=step, seed=run.seed, round=0, backbone=run.backbone, base=base, split=run.data.split,
        skip_unreadable=run.data.skip_unreadable, state=state,
    )  # fmt: skip
