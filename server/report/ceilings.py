"""What stands beside a segmentation's score: what a mask perfect on the training grid would reach, and distances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from server.evaluation.matrix import POOLED
from server.report.words import number, task_name

FROM, TO = "hd95_median_from_", "hd95_median_to_"


def ceiling_notes(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """One sentence or two for each task whose test cases were scored on the CT's own grid, after the last step."""
    found: dict[tuple[str, str], dict[str, dict[str, float | None]]] = {}
    for row in (row for row in rows if row["center"] == POOLED):
        steps = found.setdefault((row["task"], row.get("mode") or ""), {})
        steps.setdefault(row["step"], {})[row["metric"]] = row["value"]
    last = {key: list(steps.values())[-1] for key, steps in found.items()}
    return [_note(*key, values) for key, values in last.items() if values.get("dsc_agg_ceiling") is not None]


def _note(task: str, mode: str, values: Mapping[str, float | None]) -> str:
    name = f"{task_name(task)}{f' from {mode}' if mode else ''}"
    medians = [
        f"{structure} {_between(low, values.get(TO + structure))}"
        for structure, low in ((m.removeprefix(FROM), v) for m, v in values.items() if m.startswith(FROM))
        if low is not None
    ]
    said = (
        f"{name} is scored on the CT's own grid: aggregated Dice {number(values.get('dsc_agg'))}; a mask that is "
        f"perfect on the training grid would reach {number(values['dsc_agg_ceiling'])} there."
    )
    distances = f" Median HD95 over patients, missed and false ones among them: {', '.join(medians)}."
    return said + (distances if medians else "")


def _between(low: float, high: float | None) -> str:
    return f"{low:g} mm or more" if high is None else f"between {low:g} and {high:g} mm"
