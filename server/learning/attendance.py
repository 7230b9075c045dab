"""Attendance: who takes part in a round; newcomers join, those that left or are suspended are not asked."""

from __future__ import annotations

from common.store.ledger import Ledger
from server.centers.enrolment import join
from server.centers.federation import Federation, Traffic
from server.centers.quarantine import record_rejected, suspended
from server.centers.roster import SUSPENDED, WITHDRAWN, Roster
from server.learning.outcome import LEFT
from server.learning.strategy import AdapterStrategy


def call_roll(federation: Federation, strategy: AdapterStrategy, ledger: Ledger, number: int) -> Traffic:
    """Who takes part in this round: newcomers join, those that left or are suspended are not asked.

    Returns the bytes of asking newcomers who they are.
    """
    ledger.refresh()
    step = strategy.order.step
    kept_out = Roster(ledger).kept_from_training(limit=step.federation.guards.strikes)
    joined = join(federation, strategy.order, known=strategy.cases, kept_out=kept_out)
    for center, rejection in sorted(joined.rejected.items()):
        record_rejected(ledger, center, rejection, step=step.name, action="describe")
    for center in joined.training:
        counts = joined.counts[center]
        came_back = center in strategy.nodes
        strategy.admit(
            center,
            node=federation.nodes[center],
            cases=strategy.cases[center] if came_back else counts["train"],
            validation=counts.get("validation", 0),
        )
        event = {"step": step.name, "round": number, "center": center, "counts": counts, "came_back": came_back}
        ledger.append("center_joined", event)
    strategy.resting = resting(federation, strategy, ledger)
    strategy.suspended = _suspended(strategy, ledger)
    return joined.bytes


def resting(federation: Federation, strategy: AdapterStrategy, ledger: Ledger) -> dict[str, str]:
    here = federation.connected()
    out = {center: LEFT for center in strategy.nodes if center not in here}
    out |= dict.fromkeys(_suspended(strategy, ledger) & set(strategy.nodes), SUSPENDED)
    return out | dict.fromkeys(Roster(ledger).gone & set(strategy.nodes), WITHDRAWN)


def _suspended(strategy: AdapterStrategy, ledger: Ledger) -> set[str]:
    """The step's centers that are suspended: those that it names, those that enrolled and those refused for it."""
    step = strategy.order.step
    refused = [
        c
        for e in ledger.events("step_started", step=step.name)[-1:]
        for c, why in e["refused"].items()
        if why == SUSPENDED
    ]
    own = {*step.centers, *strategy.nodes, *refused}
    return own & set(suspended(ledger, limit=step.federation.guards.strikes))
