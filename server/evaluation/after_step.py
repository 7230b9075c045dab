"""After a step: what its validation cases say about the kept state, and the scores of every task seen so far."""

from __future__ import annotations

from typing import Any

from common.config.step import Step
from common.protocol.messages import Sums
from common.tasks import build_task, merge_sums
from server.centers.enrolment import Enrolment, known_of
from server.coordinator import Coordinator


def evaluate_all(coordinator: Coordinator, seen: list[dict[str, Any]], *, label: str) -> dict[str, Any]:
    """Rows for every task seen so far, each with its lineage's head, at every center seen so far in its region.

    Scores of a state that did not change are not computed again. A task's pooled row stays over the centers it was
    first evaluated at, so that a center that joins later cannot look like forgetting.
    """
    rows: list[dict[str, Any]] = []
    curves: dict[str, Any] = {}
    primary: dict[str, str] = {}
    for event in seen:
        name = event["task"]
        step = coordinator.run.steps[name]
        task = build_task(step.task)
        order = coordinator.order(step)
        order.state = coordinator.bank.get(coordinator.bank.head(event["lineage"]))
        order.threshold, order.known = event["threshold"], known_of(event)
        order.since = event["kept_round"]
        centers = sorted({c for e in seen if e["region"] == event["region"] for c in e["evaluated_at"]})
        rows += coordinator.scorer.score(order, task, centers, label=label, pooled_over=event["evaluated_at"])
        primary[name] = task.primary
        if order.wants_curves:
            curves[name] = coordinator.scorer.curves(order, task, event["evaluated_at"])
    return {"scores": rows, "curves": curves, "primary": primary}


def calibrated(coordinator: Coordinator, step: Step, enrolment: Enrolment, kept: int) -> Sums:
    """What is known of a learned step: its label sums, and what the validation cases' sums say about the kept state (a
    threshold between low and high risk, a temperature, a baseline hazard), without touching a test case."""
    task = build_task(step.task)
    known = known_of(coordinator.ledger.events("step_started", step=step.name)[0])
    order = coordinator.order(step)
    order.state = coordinator.bank.get(coordinator.bank.head(step.writes or step.name))
    order.known, order.subset, order.since = known, "validation", kept
    if step.rounds == 0 or not task.curve_shapes:
        return known
    pooled = merge_sums(list(coordinator.scorer.sums(order, task, enrolment.training).values()))
    return known | task.calibrate(pooled)
