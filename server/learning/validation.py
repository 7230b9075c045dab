"""Validation: what a state is worth on the centers' validation cases, from their screened sums."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from common.protocol.messages import Sums
from common.tasks import Task, merge_sums
from server.learning.outcome import Outcome


def value_of(task: Task, sums: Sums, metric: str) -> float | None:
    """A metric from summed sums; ``loss`` is the mean loss per case."""
    if metric == "loss":
        cases = float(sums.get("fit.cases", 0.0))
        return float(sums["fit.loss"]) / cases if cases else None
    own = {name: value for name, value in sums.items() if not name.startswith("fit.")}
    return task.metrics(own).get(metric) if own else None


def validation_of(outcome: Outcome, task: Task, *, metric: str, by_median: bool) -> dict[str, Any]:
    """A round's validation as the ledger holds it.

    Args:
        by_median: take the median of the centers' values, so that no center decides alone, instead of the pooled one.
    """
    replies = {c: reply.sums for c, reply in outcome.accepted.items() if reply.sums}
    centers = {c: value_of(task, sums, metric) for c, sums in replies.items()}
    pooled, loss = (summed_value(task, replies, name, by_median=by_median) for name in (metric, "loss"))
    return {"metric": metric, "pooled": pooled, "loss": loss, "centers": centers}


def summed_value(task: Task, replies: Mapping[str, Sums], metric: str, *, by_median: bool) -> float | None:
    """A metric from several centers' sums, added in the order of their codes, or the median of their own values; None
    where nobody tells any."""
    if not by_median:
        pooled = merge_sums([sums for _, sums in sorted(replies.items())])
        return value_of(task, pooled, metric) if pooled else None
    own = [value for sums in replies.values() if (value := value_of(task, sums, metric)) is not None]
    return statistics.median(own) if own else None
