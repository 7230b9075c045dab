"""What a center tells of its training labels before a step: counts, over patients of whom no few are told."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from client.center.patients import label_sums
from client.data.case import Case
from client.policy.orders import allows
from client.policy.policy import Policy
from client.privacy.record import Chosen, chosen
from client.privacy.release import Minimum, released
from client.privacy.sums import question_of_labels
from common.errors import PolicyRefusal
from common.protocol.messages import Order, Reply, Sums
from common.tasks import build_task

log = logging.getLogger("fedgraft.center")


def labelled(
    order: Order, cases: Sequence[Case], *, code: str, policy: Policy, vault: Path, minimum: Minimum
) -> Chosen:
    """The training cases whose labels may be counted; nobody where the difference to an earlier count is a few."""
    if policy.privacy.strict or policy.require_secure_aggregation or not allows(policy.sums, "labels"):
        return Chosen()
    if order.step.rounds == 0 or not build_task(order.step.task).label_shapes:
        return Chosen(list(cases))
    try:
        return chosen(question_of_labels(order), cases, vault=vault, minimum=minimum.cell)
    except PolicyRefusal as refusal:
        log.warning("center=%s code=%s labels are not counted: %s", code, refusal.code, refusal)
        return Chosen(waiting=len(cases))


def told_labels(order: Order, cases: Sequence[Case], *, code: str, minimum: Minimum) -> Sums:
    """The task's counts over these cases' labels, as they may leave."""
    reply = Reply(code, sums=label_sums(cases, order.step, minimum=minimum.cell))
    return released(reply, minimum=minimum, cells=build_task(order.step.task).cells, over=len(cases)).sums
