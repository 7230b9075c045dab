"""Which centers can take which step, and why the others do not."""

from __future__ import annotations

from dataclasses import dataclass, field

from common.config.schema import Step
from common.errors import RoundFailed
from common.orders import Order
from server.federation import Federation

EVERYONE = "*"


@dataclass
class Enrolment:
    """The centers of a step."""

    counts: dict[str, dict[str, int]] = field(default_factory=dict)  # every center that answered
    training: list[str] = field(default_factory=list)
    evaluating: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)


def enrol(federation: Federation, order: Order) -> Enrolment:
    """Ask every node what it holds for the step and sort the centers. Raises RoundFailed when nobody can train."""
    step = order.step
    wanted = {*step.centers, *step.evaluate_at} - {EVERYONE}
    found = federation.discover(order, at_least=max(1, len(wanted)))
    enrolment = Enrolment(counts={center: reply.counts for center, reply in found.usable.items()})
    for center in sorted(found.replies):
        _place(enrolment, step, center, found.replies[center].code, found.replies[center].counts)
    for center in sorted(wanted - set(found.replies)):
        enrolment.refused[center] = "not_connected"
    if step.rounds > 0 and not enrolment.training:
        raise RoundFailed(f"No center can train step '{step.name}': {enrolment.refused or 'none was asked to'}.")
    return enrolment


def _place(enrolment: Enrolment, step: Step, center: str, code: str, counts: dict[str, int]) -> None:
    trains = step.rounds > 0 and _is_asked(center, step.centers)
    evaluates = _is_asked(center, step.evaluate_at)
    if not (trains or evaluates):
        return
    if code != "ok":
        enrolment.refused[center] = code
        return
    if trains and counts.get("train", 0) > 0:
        enrolment.training.append(center)
    elif trains:
        enrolment.refused[center] = "no_training_cases"
    if evaluates and counts.get("test", 0) > 0:
        enrolment.evaluating.append(center)


def _is_asked(center: str, centers: list[str]) -> bool:
    return center in centers or EVERYONE in centers
