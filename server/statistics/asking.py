"""A step of statistics: every hospital is asked once, and the page that lays files side by side is made of answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.config.options import STATISTICS
from common.config.step import Step
from common.files import write_json
from common.protocol.messages import Reply
from common.protocol.wire import COUNTS_OF
from common.tasks.unlearned.statistics import told_file, told_shapes
from server.centers.enrolment import enrol
from server.centers.quarantine import record_rejected
from server.centers.roster import Roster
from server.centers.screening import Expected, Rejection, screen
from server.coordinator import Coordinator
from server.statistics.compare import Difference, Told, differences, told_of
from server.statistics.page import summary, write_page

TOLD = "statistics_told"


def gather(coordinator: Coordinator, step: Step) -> None:
    """Ask every center of the step, write what they told into the ledger and beside it, and say who differs.

    A hospital whose policy lets no statistics out answers with a code; the others' are laid side by side without it.
    What was told before is not asked again.
    """
    if coordinator.ledger.events(TOLD, step=step.name):
        return
    order = coordinator.order(step)
    order.subset = STATISTICS
    federation, roster = coordinator.federation, Roster(coordinator.ledger)
    enrolment = enrol(federation, order)
    refused = {**enrolment.refused, **{center: one.code for center, one in enrolment.rejected.items()}}
    asked = roster.askable(set(enrolment.counts) - set(refused))
    exchange = federation.ask(asked, order, "query.sums")
    told: dict[str, dict[str, Any]] = {}
    for center, reply in sorted(exchange.replies.items()):
        file, rejection = _read(reply)
        if rejection is None:
            told[center] = file
            continue
        refused[center] = rejection.code
        record_rejected(coordinator.ledger, center, rejection, step=step.name, action="sums")
    centers = [told_of(one) for one in told.values()]
    found = differences(centers)
    _write_told(coordinator.folder.path / "statistics" / step.name, told, centers, found)  # then no run lacks it
    coordinator.ledger.append(
        "statistics_told",
        {
            "step": step.name,
            "told": told,
            "refused": refused,
            "differences": sum(one.is_told for one in found),
            "compared": len(found),
            "bytes": exchange.bytes,
        },
    )
    for line in summary(centers, found, refused):
        coordinator.narrator.say(f"          {line}")


def _write_told(
    place: Path, told: Mapping[str, dict[str, Any]], centers: Sequence[Told], found: Sequence[Difference]
) -> None:
    """A file for each center in the form of its own, and the page."""
    for center, one in told.items():
        write_json(place / f"{center}.json", one)
    write_page(place / "statistics.html", centers, found)


def _read(reply: Reply) -> tuple[dict[str, Any], Rejection | None]:
    """What a center told, in the form of its file; or why it must not be used."""
    rejection = screen(reply, Expected(told_shapes(), empty=False, counts=COUNTS_OF["sums"]))
    if rejection is not None:
        return {}, rejection
    counts = reply.counts
    try:
        file = told_file(
            reply.center,
            reply.sums,
            cases=counts.get("cases", 0),
            unreadable=counts.get("skipped", 0),
            merged="merged" in counts,
        )
        told_of(file)
    except (ValueError, KeyError) as error:
        return {}, Rejection("impossible", str(error))
    return file, None
