"""Two models on the same patients as tables: the verdict in words, and a line for each metric and center."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from server.evaluation.verdicts import POOLED, gain_of
from server.report.words import count, metric_name, number, signed, task_name

Row = Mapping[str, Any]


def paired_tables(compared: Sequence[Row]) -> list[dict[str, Any]]:
    """For the template, one table for each comparison."""
    return [_table(one) for one in compared]


def _table(one: Row) -> dict[str, Any]:
    return {
        "task": task_name(one["task"]),
        "first": one["first"],
        "second": one["second"],
        "verdict": one["verdict"],
        "rows": [_line(row) for row in one["rows"]],
        "refused": [f"{center} ({code})" for center, code in sorted(one["refused"].items())],
    }


def _line(row: Row) -> dict[str, str]:
    ends = "" if row["low"] is None else f"{signed(row['low'])} to {signed(row['high'])}"
    return {
        "metric": metric_name(row["metric"]),
        "center": "all centers" if row["center"] == POOLED else row["center"],
        "first": number(row["first"]),
        "second": number(row["second"]),
        "difference": signed(row["difference"]),
        "interval": ends,
        "n": count(row["n"]),
        "said": _said(row),
    }


def _said(row: Row) -> str:
    if row["low"] is None:
        return "too few to say"
    if not row["shown"]:
        return "not shown"
    return "better" if gain_of(row) > 0 else "worse"
