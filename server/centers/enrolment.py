"""Which centers can take which step, and why the others do not."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from common.config.compatibility import EVERYONE
from common.config.run import PARTS
from common.config.step import Step
from common.errors import DataError, RoundFailed
from common.protocol.messages import OK, TOO_FEW_CASES, Order, Reply, Sums
from common.tasks import build_task, merge_sums
from server.centers.federation import UNKNOWN, UNREACHED, Federation, Traffic
from server.centers.roster import WITHDRAWN
from server.centers.screening import Rejection, expected_of_task, screen

IMPLAUSIBLE = "counts_implausible"
FEWEST_OTHERS = 2  # of one other nobody knows which of the two is wrong


@dataclass
class Enrolment:
    """The centers of a step."""

    counts: dict[str, dict[str, int]] = field(default_factory=dict)  # every center that answered
    training: list[str] = field(default_factory=list)
    evaluating: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    rejected: dict[str, Rejection] = field(default_factory=dict)  # answers that must not be used, and why
    known: Sums = field(default_factory=dict)  # the training centers' label sums, added
    bytes: Traffic = field(default_factory=dict)  # of asking them


def enrol(federation: Federation, order: Order, *, kept_out: Mapping[str, str] | None = None) -> Enrolment:
    """Ask every node what it holds for the step and sort the centers. Raises RoundFailed when nobody can train.

    Where the step asks everyone ("*"), it waits for ``federation.at_least`` centers, for as many as earlier steps knew,
    and until no more come; else for those that it names.

    Args:
        kept_out: center -> why it may not train now (`Roster.kept_from_training`); one that has left takes no part at
            all.
    """
    step = order.step
    asked = {*step.centers, *step.evaluate_at}
    wanted = asked - {EVERYONE}
    everyone = EVERYONE in asked
    known = max(step.federation.at_least, len(federation.nodes)) if everyone else 0
    found = federation.discover(order, at_least=max(1, len(wanted), known), everyone=everyone)
    counts = {center: reply.counts for center, reply in found.replies.items() if reply.counts}
    enrolment = Enrolment(counts, bytes=found.bytes)
    for center in sorted(found.replies):
        rejection = _rejection(found.replies[center], step)
        if rejection:
            enrolment.rejected[center] = rejection
        _place(enrolment, step, center, rejection.code if rejection else OK, found.replies[center].counts)
    _keep_out(enrolment, kept_out or {})
    _refuse_implausible(enrolment, step, known={})
    enrolment.known = merge_sums(found.replies[center].sums for center in enrolment.training)
    for center in sorted(wanted - set(found.replies)):
        unheard = center in found.silent or UNKNOWN in found.silent
        enrolment.refused.setdefault(center, UNREACHED if unheard else "not_connected")
    if not order.skip_unreadable:
        _refuse_broken_data(step, enrolment)
    if step.rounds > 0 and not enrolment.training:
        raise RoundFailed(
            f"No center can train step '{step.name}': {enrolment.refused or 'none was asked to'}. What the codes mean: "
            f"docs/reference/codes.md.{_silence(found.silent, step)}"
        )
    return enrolment


def _silence(silent: Sequence[str], step: Step) -> str:
    """The end of the sentence where nodes are connected and did not answer: a deadline that they could not meet."""
    if not silent:
        return ""
    return (
        f" {len(silent)} connected nodes did not answer within the step's deadline of {step.federation.deadline_s:g} s:"
        f" give steps.{step.name}.federation.deadline_s more, or look at these hospitals' logs."
    )


def as_recorded(sums: Sums) -> dict[str, Any]:
    """Sums as the ledger holds them."""
    return {name: np.asarray(value, np.float64).tolist() for name, value in sums.items()}


def known_of(event: Mapping[str, Any]) -> Sums:
    """What was known of a step's labels and of its model, as it stands in an event."""
    return {name: np.array(value, np.float64) for name, value in event.get("known", {}).items()}


def join(
    federation: Federation, order: Order, *, known: Mapping[str, int], kept_out: Mapping[str, str] | None = None
) -> Enrolment:
    """Centers that connected since, sorted for the step: they take part from the next round on.

    Args:
        known: training cases of the centers that take part already.
        kept_out: as for `enrol`.
    """
    found = federation.newcomers(order)
    enrolment = Enrolment(bytes=found.bytes)
    for center in sorted(found.replies):
        enrolment.counts[center] = found.replies[center].counts
        rejection = _rejection(found.replies[center], order.step)
        if rejection:
            enrolment.rejected[center] = rejection
        _place(enrolment, order.step, center, rejection.code if rejection else OK, found.replies[center].counts)
    _keep_out(enrolment, kept_out or {})
    _refuse_implausible(enrolment, order.step, known=known)
    return enrolment


def _refuse_implausible(enrolment: Enrolment, step: Step, *, known: Mapping[str, int]) -> None:
    """Neither train with centers whose counts dwarf the others' nor score at them: a mean by cases, and a pooled score,
    would be theirs, and nobody can check.

    Each is compared with the median of at least two others, those that take part already included.
    """
    factor = step.federation.guards.cases_factor
    said = {center: enrolment.counts[center] for center in {*enrolment.training, *enrolment.evaluating}}
    most = {center: max(counts.get(part, 0) for part in PARTS) for center, counts in said.items()}
    for center in sorted(said):
        others = [cases for name, cases in {**known, **most}.items() if name != center]
        if factor > 0 and len(others) >= FEWEST_OTHERS and most[center] > factor * max(statistics.median(others), 1):
            enrolment.training = [name for name in enrolment.training if name != center]
            enrolment.evaluating = [name for name in enrolment.evaluating if name != center]
            enrolment.refused[center] = IMPLAUSIBLE


def _keep_out(enrolment: Enrolment, kept_out: Mapping[str, str]) -> None:
    """Suspended centers do not train until they are released; a center that has left is not asked for anything."""
    for center, why in sorted(kept_out.items()):
        if why == WITHDRAWN:
            enrolment.evaluating = [c for c in enrolment.evaluating if c != center]
        if why == WITHDRAWN or center in enrolment.training:
            enrolment.refused[center] = why
        enrolment.training = [c for c in enrolment.training if c != center]


def _rejection(reply: Reply, step: Step) -> Rejection | None:
    """Why a center's description or its label sums must not be used; none at all are fine (too few cases), some not."""
    task = build_task(step.task)
    shapes = task.label_shapes
    most = float(reply.counts.get("train", 0))
    return screen(reply, expected_of_task(task, shapes, cases=most, needed=shapes, action="describe"))


def _place(enrolment: Enrolment, step: Step, center: str, code: str, counts: dict[str, int]) -> None:
    trains = step.rounds > 0 and _is_asked(center, step.centers)
    evaluates = _is_asked(center, step.evaluate_at)
    if not (trains or evaluates):
        return
    if code not in (OK, TOO_FEW_CASES):
        enrolment.refused[center] = code
        return
    if trains and code == OK and counts.get("train", 0) > 0:
        enrolment.training.append(center)
    elif trains:
        enrolment.refused[center] = "no_training_cases" if code == OK else code
    if evaluates and counts.get("test", 0) > 0:
        enrolment.evaluating.append(center)


def _is_asked(center: str, centers: list[str]) -> bool:
    return center in centers or EVERYONE in centers


def _refuse_broken_data(step: Step, enrolment: Enrolment) -> None:
    broken = sorted(center for center, code in enrolment.refused.items() if code == DataError.code)
    if broken:
        raise DataError(
            f"Step '{step.name}': {', '.join(broken)} cannot use all of their cases; their own logs name each case and "
            "what is wrong. Mend or remove those cases, or leave them out with data.skip_unreadable=true."
        )
