"""The answer to a step of statistics: what the file of `client statistics` says, as sums, by the same rules."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from client.statistics.told import KIND, statistics_of
from common.protocol.messages import Order, Reply
from common.tasks.unlearned.statistics import told_sums

if TYPE_CHECKING:
    from client.center.center import Center


def told_answer(center: Center, order: Order) -> Reply:
    """Histograms of the hospital's own patients. Raises PolicyRefusal where its policy writes no such file either."""
    started = time.perf_counter()
    minimum = center.minimum(order)
    found = statistics_of(center.code, center.cases, policy=center.config.policy, vault=center.vault, minimum=minimum)
    counts = {"cases": found["cases"], "skipped": found["unreadable"]} | ({"merged": 1} if found["merged"] else {})
    reply = Reply(center.code, sums=told_sums(found), counts=counts)
    reply = center.let_out(order, reply, what=KIND)  # counts are in whole steps of the minimum already
    return replace(reply, seconds=time.perf_counter() - started)
