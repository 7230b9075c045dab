"""The summary table that a finished run prints in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from server.report.tables import exact
from server.report.words import DASH, count, metric_name, number, signed, size, task_name

if TYPE_CHECKING:
    from rich.table import Table

HEADINGS = ("Arm", "Task", "Metric", "Pooled", "Worst center", "BWT", "Forgetting")


def summary_table(results: Mapping[str, Any]) -> Table:
    """One line per arm and task after the last step; the caption states changed bits, the base and what was sent."""
    from rich.table import Table

    table = Table(title=f"{results['run']['name']}: scores after the last step", caption=_caption(results))
    for heading in HEADINGS:
        table.add_column(heading, justify="right" if heading in ("Pooled", "BWT", "Forgetting") else "left")
    for arm, summary in results["summary"].items():
        for task, found in summary["tasks"].items():
            table.add_row(arm, task_name(task), *_cells(found))
        table.add_section()
    if not results["summary"]:
        table.add_row(DASH, "not verified yet, so nothing is summed up", *[DASH] * 5)
    return table


def _cells(found: Mapping[str, Any]) -> list[str]:
    worst = f"{found['worst_center']} {number(found['worst'])}" if found.get("worst_center") else DASH
    return [
        metric_name(found["metric"]),
        number(found.get("average")),
        worst,
        signed(found.get("bwt")),
        exact(found.get("forgetting")),
    ]


def _caption(results: Mapping[str, Any]) -> str:
    bits = ", ".join(f"{arm} {count(s['changed_bits'])}" for arm, s in results["summary"].items()) or "not verified"
    base = results["base"]
    state = "unchanged" if base["before"] == base["after"] else f"{base['after'][:12]} after {base['before'][:12]}"
    return f"changed bits: {bits} · base: {state} · sent: {_sent(results)}"


def _sent(results: Mapping[str, Any]) -> str:
    return size(sum(entry["bytes_up"] + entry["bytes_down"] for entry in results["communication"]))
