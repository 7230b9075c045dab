"""Verdicts on two models, in words, from the rows that the ledger holds of their comparison."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

POOLED = "pooled"


def verdict(event: Mapping[str, Any]) -> str:
    """``new is better than old at 3 of 5 centers (shown at 1); pooled dice +0.020 [-0.010, +0.050]: not shown.``"""
    metric, names = event["metric"], event["names"]
    rows = [row for row in event["rows"] if row["metric"] == metric and row["center"] != POOLED]
    pooled = [row for row in event["rows"] if row["metric"] == metric and row["center"] == POOLED]
    if not rows or not pooled:
        return f"{names['second']} and {names['first']} were compared at no center: nobody told enough patients."
    ahead = [row for row in rows if gain_of(row) > 0]
    shown = sum(row["shown"] for row in ahead)
    said = f"at {len(ahead)} of {len(rows)} centers" + (f" (shown at {shown})" if ahead else "")
    return (
        f"{names['second']} is better than {names['first']} {said}; pooled {metric} {in_words(pooled[0])}: "
        f"{_shown(pooled[0])}."
    )


def in_words(row: Mapping[str, Any]) -> str:
    """``+0.021 [-0.004, +0.046]``."""
    ends = "" if row["low"] is None else f" [{row['low']:+.3f}, {row['high']:+.3f}]"
    return f"{row['difference']:+.3f}{ends}"


def gain_of(row: Mapping[str, Any]) -> float:
    """The difference turned so that more is better for the second model."""
    return -float(row["difference"]) if row["better"] == "lower" else float(row["difference"])


def _shown(row: Mapping[str, Any]) -> str:
    if row["low"] is None:
        return "too few patients to say"
    if not row["shown"]:
        return "not shown"
    return "shown to be better" if gain_of(row) > 0 else "shown to be worse"


def compared_of(events: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The last comparison of each step, as results.json holds it."""
    last = {event["step"]: event for event in events if event["kind"] == "compared"}
    return [
        {
            "task": event["step"],
            "with": event["with"],
            "first": event["names"]["first"],
            "second": event["names"]["second"],
            "metric": event["metric"],
            "verdict": verdict(event),
            "rows": [dict(row) for row in event["rows"]],
            "refused": dict(event["refused"]),
        }
        for event in last.values()
    ]
