"""Two models on the same patients: every center is asked for paired sums, and the ledger gets the differences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common.config.step import Step
from common.metrics import LOWER_IS_BETTER
from common.metrics.paired import Difference
from common.protocol.comparing import comparing
from common.protocol.messages import Order, Sums
from common.protocol.wire import COUNTS_OF
from common.tasks.unlearned.paired import differences, metrics_compared, paired_shapes, wrong_with
from server.centers.enrolment import enrol, known_of
from server.centers.federation import UNREACHED, Exchange
from server.centers.quarantine import record_rejected
from server.centers.roster import Roster
from server.centers.screening import Expected, screen
from server.coordinator import Coordinator
from server.evaluation.after_step import learned
from server.evaluation.verdicts import verdict
from server.run.continued import models_taken

TEST = "test"


def compare(coordinator: Coordinator, step: Step) -> None:
    """Ask every center that scored both models how they differ on the same patients, and write it down.

    Whoever refuses or is silent is named; a run that was stopped before asks again.
    """
    assert step.compared_with is not None
    first, second = (_event(coordinator, name) for name in (step.compared_with, step.name))
    order = _order(coordinator, step, first, second)
    wanted = {*first["evaluated_at"]} & {*second["evaluated_at"]}
    if wanted - {*coordinator.federation.nodes}:  # a run that was stopped has not asked who is there
        enrol(coordinator.federation, coordinator.order(step))
    centers = sorted(wanted & {*coordinator.federation.nodes})
    exchange = coordinator.federation.ask(Roster(coordinator.ledger).askable(centers), order, "evaluate")
    sums, refused = told(coordinator, step, exchange)
    rows = rows_of(step.task, sums)
    names = _names(coordinator, step)
    event = coordinator.ledger.append(
        "compared",
        {
            "step": step.name,
            "with": step.compared_with,
            "names": names,
            "keys": {"first": first["key"], "second": second["key"]},
            "metric": metrics_compared(step.task)[0],
            "rows": rows,
            "asked": centers,
            "refused": refused,
            "bytes": exchange.bytes,
        },
    )
    coordinator.narrator.say(f"          {verdict(event)}")


def rows_of(spec: Any, by_center: Mapping[str, Sums]) -> list[dict[str, Any]]:
    """A row for each metric and center, ``pooled`` last: both models' scores and the second's minus the first's."""
    found = differences(spec, by_center)
    return [_row(metric, center, one) for metric, each in found.items() for center, one in each.items()]


def _row(metric: str, center: str, one: Difference) -> dict[str, Any]:
    return {
        "metric": metric,
        "center": center,
        "n": one.n,
        "first": one.a,
        "second": one.b,
        "difference": one.value,
        "low": one.low,
        "high": one.high,
        "shown": one.is_shown,
        "better": "lower" if metric in LOWER_IS_BETTER else "higher",
    }


def _event(coordinator: Coordinator, name: str) -> dict[str, Any]:
    return next(event for event in learned(coordinator.ledger) if event["step"] == name)


def _order(coordinator: Coordinator, step: Step, first: Mapping[str, Any], second: Mapping[str, Any]) -> Order:
    order = coordinator.order(step)
    order.state, order.known, order.subset = coordinator.bank.get(second["key"]), known_of(second), TEST
    other = coordinator.run.steps[first["step"]]
    return comparing(order, other, state=coordinator.bank.get(first["key"]), known=known_of(first))


def told(coordinator: Coordinator, step: Step, exchange: Exchange) -> tuple[dict[str, Sums], dict[str, str]]:
    """What may be used of the answers, by center, and why the others' may not."""
    shapes = paired_shapes(step.task)
    found: dict[str, Sums] = {}
    refused: dict[str, str] = {}
    for center, reply in sorted(exchange.replies.items()):
        expected = Expected(
            shapes,
            needed=frozenset(shapes),
            empty="suppressed" in reply.counts,
            cases=coordinator.scorer.roster.registered(center, TEST),
            impossible=lambda sums, most: wrong_with(step.task, sums, most) if sums else "",
            counts=COUNTS_OF["evaluate"],
        )
        rejection = screen(reply, expected)
        if rejection is not None:
            refused[center] = rejection.code
            if rejection.code != UNREACHED:
                record_rejected(coordinator.ledger, center, rejection, step=step.name, action="evaluate")
        elif reply.sums:
            found[center] = reply.sums
        else:
            refused[center] = "suppressed"
    return found, refused


def _names(coordinator: Coordinator, step: Step) -> dict[str, str]:
    """What people call the two models: their bank and lineage, or the steps of this run."""
    taken = models_taken(coordinator.ledger)

    def name(of: str) -> str:
        return f"'{taken[of]['lineage']}' of {taken[of]['bank']}" if of in taken else f"'{of}'"

    return {"first": name(step.compared_with or ""), "second": name(step.name)}
