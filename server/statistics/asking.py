"""A step of statistics: every hospital is asked once, and the page that lays files side by side is made of answers."""

from __future__ import annotations

from typing import Any

from common.config.options import STATISTICS
from common.config.step import Step
from common.files import write_json
from common.protocol.messages import Reply
from common.protocol.wire import COUNTS_OF
from common.tasks.unlearned.statistics import told_file, told_shapes
from server.centers.enrolment import enrol
from server.centers.federation import UNREACHED
from server.centers.quarantine import record_rejected
from server.centers.roster import Roster
from server.centers.screening import Expected, Rejection, screen
from server.coordinator import Coordinator
from server.run.folder import RunFolder
from server.statistics.compare import differences, told_of
from server.statistics.page import sentence, write_page

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
        if rejection.code != UNREACHED:
            record_rejected(coordinator.ledger, center, rejection, step=step.name, action="sums")
    found = differences([told_of(one) for one in told.values()])
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
    write_told(coordinator.folder, step.name, told)
    for line in summary(told, refused):
        coordinator.narrator.say(f"          {line}")


def write_told(folder: RunFolder, name: str, told: dict[str, dict[str, Any]]) -> None:
    """A file for each center in the form of its own, and the page, in the run's folder."""
    place = folder.path / "statistics" / name
    for center, one in told.items():
        write_json(place / f"{center}.json", one)
    centers = [told_of(one) for _, one in sorted(told.items())]
    write_page(place / "statistics.html", centers, differences(centers))


def summary(told: dict[str, dict[str, Any]], refused: dict[str, str]) -> list[str]:
    """Who told how much, who did not and why, and what differs by more than chance."""
    centers = [told_of(one) for _, one in sorted(told.items())]
    found = differences(centers)
    lines = [
        f"{one.center}: {one.cases} patients (in steps of {one.minimum}), {len(one.histograms)} quantities"
        for one in centers
    ]
    lines += [f"{center} tells no statistics: {code}" for center, code in sorted(refused.items())]
    lines += [sentence(one, centers) for one in found if one.is_told]
    told_apart = sum(one.is_told for one in found)
    return [*lines, f"{told_apart} of {len(found)} comparisons differ by more than chance (Holm, 0.05)"]


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
