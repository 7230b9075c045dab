"""After a step: what its validation cases say about the kept state, and the scores of every task seen so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from common.config.step import Step
from common.privacy.scores import scored_task
from common.protocol.messages import Sums
from common.store.ledger import Ledger
from common.store.lineage import state_in_use
from common.tasks import merge_sums
from server.centers.enrolment import known_of
from server.coordinator import Coordinator


@dataclass
class Found:
    """One task's rows, its curves where it has any, and its rows by subgroup where the step names some."""

    rows: list[dict[str, Any]]
    curves: dict[str, Any]
    subgroups: list[dict[str, Any]] = field(default_factory=list)


def evaluate_all(coordinator: Coordinator, seen: list[dict[str, Any]], *, label: str) -> dict[str, Any]:
    """Rows for every task seen so far, each as its lineage has it now, at every center seen so far in its region.

    Scores of a state that did not change are not computed again. A task's pooled row stays over the centers it was
    first evaluated at, so that a center that joins later cannot look like forgetting.
    """
    rows: list[dict[str, Any]] = []
    subgroups: list[dict[str, Any]] = []
    curves: dict[str, Any] = {}
    primary: dict[str, str] = {}
    for event in seen:
        name = event["task"]
        centers = sorted({c for e in seen if e["region"] == event["region"] for c in e["evaluated_at"]})
        found = score_all(coordinator, event, centers, label=label)
        rows += found.rows
        subgroups += found.subgroups
        curves |= found.curves
        primary[name] = scored_task(coordinator.run.steps[name]).primary
    return {"scores": rows, "curves": curves, "primary": primary, "subgroups": subgroups}


def score_all(coordinator: Coordinator, event: dict[str, Any], centers: Sequence[str], *, label: str) -> Found:
    """Rows and curves of one learned task as its lineage has it now, pooled over the centers it was evaluated at.

    Args:
        event: the task's ``step_finished``.
    """
    step = coordinator.run.steps[event["task"]]
    task = scored_task(step)
    order = coordinator.order(step)
    head = coordinator.bank.head(event["lineage"])
    order.state = state_in_use(coordinator.bank, head=head, own=event["key"])
    order.threshold, order.known = event["threshold"], known_of(event)
    order.since = event["kept_round"]
    rows = coordinator.scorer.score(order, task, centers, label=label, pooled_over=event["evaluated_at"])
    over = event["evaluated_at"]
    levels = coordinator.scorer.by_subgroup(order, task, centers, label=label, pooled_over=over)
    if not order.wants_curves:
        return Found(rows, {}, levels)
    return Found(rows, {event["task"]: coordinator.scorer.curves(order, task, over)}, levels)


def learned(ledger: Ledger) -> list[dict[str, Any]]:
    """Every ``step_finished`` event, with what a later ``step_rescored`` says of how its head is read and where."""
    newer = {event["step"]: event for event in ledger.events("step_rescored")}
    read = ("evaluated_at", "known", "threshold", "key")
    return [
        event | {name: newer[event["step"]][name] for name in read if event["step"] in newer}
        for event in ledger.events("step_finished")
    ]


def calibrated(coordinator: Coordinator, step: Step, training: Sequence[str], kept: int, *, known: Sums) -> Sums:
    """What is known of a learned step: its label sums, and what the validation cases' sums say about the kept state (a
    threshold between low and high risk, a temperature, a baseline hazard), without touching a test case.

    Args:
        training: the centers whose validation cases are asked.
        known: the step's label sums.
    """
    task = scored_task(step)
    order = coordinator.order(step)
    order.state = coordinator.bank.get(coordinator.bank.head(step.writes or step.name))
    order.known, order.subset, order.since = known, "validation", kept
    if step.rounds == 0 or not task.curve_shapes:
        return known
    pooled = merge_sums(list(coordinator.scorer.sums(order, task, training).values()))
    return known | task.calibrate(pooled)
