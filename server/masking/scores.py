"""Scores of which the server knows sums alone: one question to several centers, answered under masks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from common.errors import RoundFailed, WireError
from common.protocol.masked import SUMS, masked_form, scoring_layout, sums_in
from common.protocol.messages import Order, Sums
from common.tasks import Task
from server.centers.federation import Federation, Traffic, added
from server.centers.screening import expected_of_task
from server.masking.asking import SecureSum


@dataclass
class Scored:
    """What a secure sum of scores brought."""

    sums: Sums = field(default_factory=dict)
    centers: list[str] = field(default_factory=list)  # whose cases are in it
    failed: dict[str, str] = field(default_factory=dict)  # center -> code
    bytes: Traffic = field(default_factory=dict)
    why: str = ""  # why there are no sums


def scored_securely(federation: Federation, orders: Mapping[str, Order], task: Task, *, most: float | None) -> Scored:
    """The sum of several centers' scores.

    Args:
        orders: center -> its order; they differ in nothing that is asked.
        most: cases registered by all of them; None where nobody knows.
    """
    found = Scored()
    order = next(iter(orders.values()), None)
    if order is None:
        return found
    layout = scoring_layout(order)
    summed = SecureSum(federation, order, orders, most=1.0)
    try:
        masking = summed.begin()
        asked = {c: own for c, own in orders.items() if c not in summed.failed}
        shared = {id(own): replace(own, masking=masking) for own in asked.values()}
        exchange = federation.ask_each({c: shared[id(own)] for c, own in asked.items()}, "evaluate")
        found.bytes = added(found.bytes, exchange.bytes)
        summed.failed |= exchange.failed
        whole = set(masked_form(layout))
        masked = {center: reply.extra for center, reply in exchange.usable.items() if set(reply.extra) == whole}
        vectors, _ = summed.finish(masked)
        sums = sums_in(layout, vectors[SUMS])
        wrong = expected_of_task(task, {}, cases=None).impossible(sums, math.inf if most is None else most)
        if wrong:
            raise RoundFailed(f"the centers' sums are none that patients could make ({wrong})")
        found.sums, found.centers = sums, sorted(masked)
    except (RoundFailed, WireError) as error:
        found.why = str(error)
    found.failed, found.bytes = dict(summed.failed), added(found.bytes, summed.bytes)
    return found
