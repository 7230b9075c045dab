"""The cuts of survival time of a step, chosen once from the centers' summed histograms then part of the step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from common.config.step import Step
from common.errors import RoundFailed
from common.protocol.messages import Order, Sums
from common.protocol.wire import COUNTS_OF
from common.store.ledger import Ledger
from common.tasks.cuts import BINS, EVENTS, GRID, quantile_cuts
from server.centers.enrolment import enrol
from server.centers.federation import Federation, added
from server.centers.quarantine import record_rejected
from server.centers.roster import Roster
from server.centers.screening import Expected, screen


def fix_cuts(step: Step, order: Order, federation: Federation, ledger: Ledger, *, say: Callable[[str], None]) -> None:
    """Give the step its quantile cuts, from the ledger where they were chosen before. Other cuts stay as they are."""
    task = step.task
    if getattr(task, "grid", "") != "quantiles" or task.cuts_days:
        return
    chosen = ledger.events("grid_chosen", step=step.name)
    task.cuts_days = chosen[0]["cuts_days"] if chosen else _choose(step, order, federation, ledger, say)


def _choose(
    step: Step, order: Order, federation: Federation, ledger: Ledger, say: Callable[[str], None]
) -> list[float]:
    kept_out = Roster(ledger).kept_from_training(limit=step.federation.guards.strikes)
    enrolment = enrol(federation, order, kept_out=kept_out)
    exchange = federation.ask(enrolment.training, replace(order, subset=GRID), "query.sums")
    shapes = {EVENTS: (BINS,)}
    histograms = {}
    for center, reply in sorted(exchange.replies.items()):
        cases = float(enrolment.counts[center]["train"])
        expected = Expected(
            shapes,
            needed=frozenset(shapes),
            empty=False,
            cases=cases,
            impossible=_impossible,
            counts=COUNTS_OF["sums"],
        )
        rejection = screen(reply, expected)
        if rejection is None:
            histograms[center] = reply.sums[EVENTS]
        else:
            record_rejected(ledger, center, rejection, step=step.name, action="sums")
    if not histograms:
        raise RoundFailed(
            f"Step '{step.name}': no center reported its event times ({exchange.failed}); see their logs."
        )
    histogram = np.sum(list(histograms.values()), axis=0)
    cuts = quantile_cuts(histogram, horizon=step.task.horizon_days, cuts=step.task.bins)
    event = {"step": step.name, "cuts_days": cuts, "events": float(histogram.sum()), "centers": sorted(histograms)}
    ledger.append("grid_chosen", {**event, "bytes": added(enrolment.bytes, exchange.bytes)})
    say(f"{step.name}: {len(cuts)} cuts from {histogram.sum():.0f} events at {len(histograms)} centers")
    return cuts


def _impossible(sums: Sums, cases: float) -> str:
    events = sums[EVENTS]
    if (events < 0).any() or (events > cases).any():  # before they are added: finite numbers overflow, too
        return f"{EVENTS} counts {float(events.max()):g} events in a bin among {cases:g} cases, or fewer than none"
    if float(events.sum()) > cases:
        return f"{EVENTS} counts {float(events.sum()):g} events among {cases:g} cases"
    return ""
