"""The report's tables as plain data, for the template to draw: curriculum, scores, centers, arms, comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from common.config.limits.budget import spent
from common.metrics import LOWER_IS_BETTER, Estimate
from common.metrics.names import chance, margin
from server.evaluation.course import area_under, rounds_to
from server.evaluation.matrix import (
    POOLED,
    START,
    Column,
    Row,
    centers_of,
    columns,
    final_scores,
    score_matrix,
    steps_of,
    summary,
    worst_center,
)
from server.report.charts import interval_strip, ticks
from server.report.reading.record import RunRecord, StepRecord
from server.report.words import DASH, count, metric_name, number, sentence, signed, size, task_name

CEILING = "_ceiling"  # after a metric's name: of a mask that is perfect on the training grid


@dataclass
class Arm:
    """One way of training, reduced to its scores."""

    name: str
    rows: Sequence[Row]
    metrics: Mapping[str, str]
    learned: Mapping[str, str] = field(default_factory=dict)
    changed_bits: int | None = None


@dataclass
class Comparison:
    """A paired difference ``a - b`` of one metric, with its 95 % interval over patients.

    A difference that could not be computed has no value (``note`` then says why). Of a metric of which less is better
    (`LOWER_IS_BETTER`: a distance, an error) a negative difference is the better one for ``a``.
    """

    task: str
    metric: str
    a: str
    b: str
    difference: Estimate
    note: str = ""

    @property
    def gain(self) -> Estimate:
        """The difference turned so that more is better for ``a``."""
        return self.difference.negated() if self.metric in LOWER_IS_BETTER else self.difference

    def row(self) -> dict[str, Any]:
        """As results.json and a run folder hold it."""
        found = self.difference
        return {
            "task": self.task, "metric": self.metric, "a": self.a, "b": self.b, "difference": found.value,
            "low": found.low, "high": found.high, "n": found.n, "note": self.note,
            "better": "lower" if self.metric in LOWER_IS_BETTER else "higher",
        }  # fmt: skip


def comparison_of(row: Mapping[str, Any]) -> Comparison:
    """The opposite of `Comparison.row`."""
    difference = Estimate(row["difference"], row["low"], row["high"], row["n"] or 0)
    return Comparison(row["task"], row["metric"], row["a"], row["b"], difference, row.get("note", ""))


def curriculum(run: RunRecord) -> list[dict[str, Any]]:
    """One card per step: what it learned, where, with how much."""
    return [_card(step, position) for position, step in enumerate(run.steps)]


def matrix(rows: Sequence[Row], arm: Arm, *, center: str = POOLED) -> dict[str, Any]:
    """Steps x tasks of one center, with colour values, and what was forgotten under each column."""
    shown = columns(arm.rows, arm.metrics)
    scores = score_matrix(arm.rows, arm.metrics, center=center)
    scales = {c.key: _scale(c, [scores[s][c.key] for s in scores]) for c in shown}
    body = [
        {
            "name": "Before training" if step == START else task_name(step),
            "cells": [_cell(scores[step][c.key], scales[c.key], home=arm.learned.get(c.key) == step) for c in shown],
        }
        for step in scores
    ]
    return {"columns": [_heading(c) for c in shown], "rows": body, "forgetting": _forgetting(rows, arm, shown)}


def center_matrices(arm: Arm) -> list[dict[str, Any]]:
    """Per task: centers x steps, from the step that learned the task on."""
    found = []
    for column in columns(arm.rows, arm.metrics):
        steps = _since(arm, column)
        scores = {c: score_matrix(arm.rows, arm.metrics, center=c) for c in [*centers_of(arm.rows), POOLED]}
        lines = {c: [scores[c][s][column.key] for s in steps] for c in scores}
        scale = _scale(column, [v for line in lines.values() for v in line])
        body = [{"name": c, "cells": [_cell(v, scale) for v in line]} for c, line in lines.items() if any(_known(line))]
        found.append({"heading": _heading(column), "steps": [task_name(s) for s in steps], "rows": body})
    return found


def centers(arm: Arm) -> dict[str, Any]:
    """Center x task after the last step: value, interval where there is one, n, and the worst center marked; beside a
    segmentation that was scored on the CT's grid, the ceiling of each center."""
    shown = with_ceilings(arm.rows, columns(arm.rows, arm.metrics))
    finals = {c.key: final_scores(arm.rows, c) for c in shown}
    worst = {c.key: worst_center(arm.rows, c)[0] for c in shown}
    scored = {key: sum(r["value"] is not None for c, r in rows.items() if c != POOLED) for key, rows in finals.items()}
    body = []
    for center in [*centers_of(arm.rows), POOLED]:
        cells = [_score(finals[c.key].get(center), c) for c in shown]
        for cell, c in zip(cells, shown, strict=True):
            cell["worst"] = scored[c.key] > 1 and worst[c.key] == center and not is_ceiling(c)
        body.append(
            {"name": "All centers, pooled" if center == POOLED else center, "pooled": center == POOLED, "cells": cells}
        )
    return {"columns": [_heading(c) for c in shown], "rows": body}


def arms(every: Sequence[Arm]) -> dict[str, Any] | None:
    """Arm x task after the last step: pooled value and worst center; None with a single arm."""
    if len(every) < 2:
        return None
    keys = {c.key: c for arm in reversed(every) for c in columns(arm.rows, arm.metrics)}
    shown = [keys[c.key] for c in columns(every[0].rows, every[0].metrics)]
    shown += [c for key, c in keys.items() if key not in {c.key for c in shown}]
    shown = with_ceilings([row for arm in every for row in arm.rows], shown)
    return {"columns": [_heading(c) for c in shown], "rows": [_arm_row(arm, shown) for arm in every]}


def with_ceilings(rows: Sequence[Row], shown: Sequence[Column]) -> list[Column]:
    """Each column, and after it what a mask perfect on the training grid would reach, where that was scored."""
    there = {(row["task"], row["metric"], row.get("mode") or "") for row in rows if row["value"] is not None}
    found: list[Column] = []
    for column in shown:
        ceiling = replace(column, key=f"{column.key}{CEILING}", metric=f"{column.metric}{CEILING}")
        found += [column, *([ceiling] if (column.task, ceiling.metric, column.mode) in there else [])]
    return found


def is_ceiling(column: Column) -> bool:
    """Whether the column holds what a perfect mask would reach, and no score."""
    return column.metric.endswith(CEILING)


def comparisons(items: Sequence[Comparison]) -> list[dict[str, Any]]:
    """Groups of one task and metric, each on its own symmetric axis."""
    groups: dict[tuple[str, str], list[Comparison]] = {}
    for item in items:
        groups.setdefault((item.task, item.metric), []).append(item)
    return [_group(task, metric, found) for (task, metric), found in groups.items()]


def verdict(item: Comparison) -> str:
    """The difference in plain words: what the interval shows, and what it rules out."""
    found = item.gain
    if found.value is None or found.low is None or found.high is None:
        return f"Not computed: {item.note or 'no interval was given'}."
    if found.low > 0:
        return f"{sentence(item.a)} is better: the interval excludes 0."
    if found.high < 0:
        return f"{sentence(item.a)} is worse: the interval excludes 0."
    within = margin(item.metric)
    if within is None:
        return "Interval includes 0: no difference shown."
    ruled = "is ruled out" if found.low > -within else "is not ruled out"
    return f"Interval includes 0: no difference shown. A loss beyond the margin of {within} {ruled}."


def why_missing(row: Row) -> str:
    """Why a score is None: the row says it, or its count tells."""
    if row.get("why"):
        return str(row["why"])
    if row["n"] is None:
        return "suppressed: too few cases"
    if row["n"] == 0:
        return "no test cases"
    return "no comparable pair" if metric_name(row["metric"]) == "C-index" else "undefined on these cases"


def _card(step: StepRecord, position: int) -> dict[str, Any]:
    parts = step.started.get("parts", {})
    rounds = step.started.get("rounds", step.plan.get("rounds", len(step.rounds)))
    done = step.finished or {}
    cost = spent(step.rounds)
    kept = f", kept round {done['kept_round']}" if rounds and done.get("kept_round") else ""
    return {
        "position": position,
        "name": task_name(step.name),
        "task": step.plan.get("task", DASH),
        "modalities": step.plan.get("modalities", []),
        "centers": step.centers,
        "training": f"{rounds} round{'' if rounds == 1 else 's'}{kept}" if rounds else "evaluated only, never trained",
        "cost": str(cost) if cost.steps else "",
        "course": _course(step.course),
        "parts": [{"name": name, "parameters": count(n)} for name, n in parts.items()],
        "parameters": count(sum(parts.values())) if parts else None,
        "bytes": size(step.started.get("adapter_bytes")),
        "key": (done.get("key") or "")[:12],
        "state": "finished" if step.finished else "unfinished" if step.started else "not started",
    }


def _course(scores: Sequence[float | None]) -> str:
    near, area = rounds_to(scores), area_under(scores)
    if near is None or area is None:
        return ""
    return f"95 % of its best validation score after {near} round{'' if near == 1 else 's'}, area {number(area)}"


def _heading(column: Column) -> dict[str, str]:
    return {
        "task": task_name(column.key.removesuffix(CEILING)),
        "metric": metric_name(column.metric),
        "mode": column.mode.replace("+", " + "),
    }


def _scale(column: Column, values: Sequence[float | None]) -> tuple[float, float]:
    """The colour's range: from guessing to perfect where the metric has such ends, else the values' own range."""
    known = [v for v in values if v is not None]
    if column.metric in LOWER_IS_BETTER or any(not 0 <= v <= 1 for v in known):
        low, high = min(known, default=0.0), max(known, default=1.0)
        return (high, low) if column.metric in LOWER_IS_BETTER else (low, high)
    return chance(column.metric) or 0.0, 1.0


def _cell(value: float | None, scale: tuple[float, float], *, home: bool = False) -> dict[str, Any]:
    if value is None:
        return {"text": DASH, "heat": None, "home": home}
    low, high = scale
    heat = min(1.0, max(0.0, (value - low) / (high - low))) if high != low else 0.5
    return {
        "text": number(value),
        "heat": f"{100 * heat:.0f}",
        "tone": "deep" if heat > 0.65 else "mid" if heat > 0.45 else "",
        "home": home,
    }


def _forgetting(rows: Sequence[Row], arm: Arm, shown: Sequence[Column]) -> list[dict[str, Any]]:
    tasks = summary(rows, arm.metrics, learned=arm.learned)["tasks"]
    return [{"text": exact(tasks[c.key]["forgetting"]), "bad": (tasks[c.key]["forgetting"] or 0) > 0} for c in shown]


def exact(value: float | None) -> str:
    """Forgetting as a number: a bare 0 means exactly zero; whatever rounds to zero without being it is written out."""
    if value is None:
        return DASH
    return "0" if value == 0 else number(value) if abs(value) >= 0.0005 else f"{value:.1e}".replace("-", "−")


def _since(arm: Arm, column: Column) -> list[str]:
    steps = steps_of(arm.rows)
    home = arm.learned.get(column.key)
    scored = [r["step"] for r in arm.rows if r["task"] == column.task and (r.get("mode") or "") == column.mode]
    first = steps.index(home) if home in steps else min((steps.index(s) for s in scored), default=0)
    return steps[first:]


def _known(values: Sequence[float | None]) -> list[bool]:
    return [value is not None for value in values]


def _score(row: Row | None, column: Column) -> dict[str, Any]:
    if row is None:
        return {"text": DASH, "why": "", "n": "", "interval": ""}
    low, high = row.get("low"), row.get("high")
    between = f"{number(low)} to {number(high)}" if low is not None and high is not None else ""
    between = f"± {number(row['noise'])} by noise" if row.get("noise") is not None else between
    n = "" if row["n"] is None else f"n = {count(row['n'])}"
    return {
        "text": number(row["value"]),
        "why": why_missing(row) if row["value"] is None else "",
        "n": n,
        "interval": between,
    }


def _arm_row(arm: Arm, shown: Sequence[Column]) -> dict[str, Any]:
    own = {c.key: c for c in with_ceilings(arm.rows, columns(arm.rows, arm.metrics))}
    cells = []
    for column in shown:
        mine = own.get(column.key)
        pooled = final_scores(arm.rows, mine).get(POOLED) if mine else None
        cells.append(_score(pooled, column) | {"below": _worst(arm, mine) if mine and not is_ceiling(mine) else ""})
    return {"name": arm.name, "cells": cells}


def _worst(arm: Arm, column: Column) -> str:
    """Empty where the task has one center only: its score is the pooled one."""
    name, value = worst_center(arm.rows, column)
    others = [center for center in final_scores(arm.rows, column) if center not in (POOLED, name)]
    return f"worst {number(value)} ({name})" if name and others else ""


def _group(task: str, metric: str, found: Sequence[Comparison]) -> dict[str, Any]:
    shown = [c.difference for c in found]
    ends = [abs(v) for d in shown for v in (d.low, d.high, d.value) if v is not None]
    limit = ticks(0, max(ends, default=0.1) or 0.1, about=3)[-1]
    rows = [_difference(item, limit) for item in found]
    told = metric_name(metric) + (", lower is better" if metric in LOWER_IS_BETTER else "")
    return {"task": task_name(task), "metric": told, "rows": rows, "limit": f"{limit:g}"}


def _difference(item: Comparison, limit: float) -> dict[str, Any]:
    found, strip = item.difference, ""
    complete = found.value is not None and found.interval is not None
    if found.value is not None and found.low is not None and found.high is not None:
        strip = interval_strip(found.value, found.low, found.high, limit=limit)
    return {
        "a": item.a,
        "b": item.b,
        "difference": signed(found.value),
        "interval": f"{signed(found.low)} to {signed(found.high)}" if complete else "",
        "n": count(found.n),
        "strip": strip,
        "verdict": verdict(item),
        "note": item.note if complete else "",
    }
