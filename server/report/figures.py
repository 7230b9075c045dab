"""The report's figures: learning curves, survival by predicted risk, and bytes against the full model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from common.errors import LedgerError
from common.metrics import Estimate
from common.metrics.names import chance
from server.evaluation.matrix import POOLED, Column, final_scores
from server.report.charts import (
    MONTH,
    ForestRow,
    Line,
    Point,
    forest_chart,
    key,
    learning_curve,
    reliability_chart,
    survival_chart,
)
from server.report.reading.record import RunRecord, StepRecord
from server.report.reading.traffic import PHASES, total
from server.report.survival import risk_groups
from server.report.words import count, metric_name, number, p_value, sentence, share, size, task_name


def learning(run: RunRecord) -> dict[str, Any]:
    """One card per trained step: training loss per center, validation per center and pooled."""
    codes = list(dict.fromkeys(center for step in run.steps for center in step.centers if step.rounds))
    slots = {center: slot for slot, center in enumerate(codes)}
    legend = [{"name": code, "key": key(slot)} for code, slot in slots.items()]
    cards = [_learning_card(step, slots) for step in run.steps if step.rounds]
    return {"cards": cards, "legend": [*legend, {"name": "all centers, pooled", "key": key(None)}]}


def survival(run: RunRecord) -> list[dict[str, Any]]:
    """One chart per prognosis task, or the reason why there is none."""
    return [_survival_card(task, counts) for task, counts in run.curves.items() if "at_risk" in counts]


def calibration(run: RunRecord) -> list[dict[str, Any]]:
    """One chart per task that predicts probabilities: predicted against observed shares, summed over centers."""
    return [_calibration_card(task, counts) for task, counts in run.curves.items() if "reliability" in counts]


def forests(run: RunRecord, columns: Sequence[Column]) -> list[dict[str, Any]]:
    """One chart per task that several centers tested: every center's score, its interval and its cases."""
    cards = []
    for column in columns:
        scores = final_scores(run.rows, column)
        if len(scores) > 2:
            rows = [_estimate(center, row) for center, row in sorted(scores.items(), key=lambda s: s[0] == POOLED)]
            guess = chance(column.metric)
            chart = forest_chart(rows, label=metric_name(column.metric), chance=guess)
            cards.append({"name": task_name(column.task), "mode": column.mode, "chart": chart})
    return cards


def _estimate(center: str, row: Mapping[str, Any]) -> ForestRow:
    pooled = center == POOLED
    name = "all, pooled" if pooled else center
    return ForestRow(name, Estimate(row["value"], row.get("low"), row.get("high"), int(row["n"] or 0)), pooled)


def _calibration_card(task: str, counts: Mapping[str, Any]) -> dict[str, Any]:
    bins = counts["reliability"]
    points = [
        Point(predicted / cases, observed / cases, cases)
        for cases, predicted, observed in zip(bins["cases"], bins["predicted"], bins["observed"], strict=True)
        if cases > 0
    ]
    days, total = counts.get("reliability_days"), sum(bins["cases"])
    away = sum(abs(p - o) for p, o in zip(bins["predicted"], bins["observed"], strict=True))
    temperature = counts.get("temperature")
    return {
        "name": task_name(task),
        "what": "positive" if days is None else f"relapse within {days / MONTH:.0f} months",
        "chart": reliability_chart(points, label="Predicted against observed share"),
        "error": number(away / total) if total else None,
        "cases": count(round(total)),
        "temperature": None if temperature is None else number(temperature, 2),
    }


def communication(run: RunRecord) -> dict[str, Any] | None:
    """Mean bytes per center and round of every trained step, beside the whole model, and everything that crossed by
    phase; None when nothing travelled."""
    backbone = run.begun.get("backbone", {})
    whole, released = backbone.get("bytes"), run.released_model_bytes
    sent = [entry for step in run.steps if (entry := _traffic(step, run))]
    if not run.traffic:
        return None
    ends = [v for e in sent for v in (e["up"], e["down"])] + [v for v in (whole, released) if v]
    axis = _decades(ends)
    bars = [_bars(e, axis) for e in sent]
    full = [_full(f"Whole {_model(backbone)}", whole, axis)] if whole else []
    full += [_full("Whole released CT-CLIP", released, axis)] if released else []
    table = [_table_row(e, whole, released) for e in sent]
    return {"bars": bars, "full": full, "axis": axis["ticks"], "table": table, "model": _model(backbone)} | {
        "phases": _phases(run),
        "included": _included(run),
        "whole": size(whole) if whole else None,
        "released": size(released) if released else None,
        "rounds": size(sum(e["total"] for e in sent)),
        "total": size(total(run.traffic)),
        "instead": size(2 * whole * sum(e["replies"] for e in sent)) if whole else None,
    }


def traffic_per_reply(step: StepRecord) -> tuple[float, float] | None:
    """Mean bytes (up, down) per center and round of one step."""
    counts = [c for r in step.rounds for c in r.get("bytes", {}).values()]
    if not counts:
        return None
    return sum(c["up"] for c in counts) / len(counts), sum(c["down"] for c in counts) / len(counts)


def _model(backbone: Mapping[str, Any]) -> str:
    names = {"ct_clip": "CT-CLIP"}
    kind = str(backbone.get("kind", "model"))
    return f"{names.get(kind, kind)} {backbone.get('config', '')}".strip()


def _learning_card(step: StepRecord, slots: Mapping[str, int]) -> dict[str, Any]:
    metric = next((r["validation"]["metric"] for r in step.rounds if r.get("validation")), "")
    centers = [c for c in slots if any(c in r.get("train", {}) or c in _validated(r) for r in step.rounds)]
    loss = [Line(c, [r.get("train", {}).get(c, {}).get("loss") for r in step.rounds], slots[c]) for c in centers]
    scores = [Line(c, [_validated(r).get(c) for r in step.rounds], slots[c]) for c in centers]
    pooled = Line("all centers, pooled", [(r.get("validation") or {}).get("pooled") for r in step.rounds], None)
    kept = (step.finished or {}).get("kept_round")
    return {
        "name": task_name(step.name),
        "metric": metric_name(metric) if metric else "score",
        "kept": kept,
        "loss": learning_curve(loss, label="Training loss", kept=kept),
        "validation": learning_curve([*scores, pooled], label=f"Validation {metric_name(metric)}", kept=kept),
    }


def _validated(event: Mapping[str, Any]) -> Mapping[str, float | None]:
    return (event.get("validation") or {}).get("centers") or {}


def _survival_card(task: str, counts: Mapping[str, Any]) -> dict[str, Any]:
    try:
        groups = risk_groups(counts)
    except LedgerError as problem:
        return {"name": task_name(task), "reason": str(problem)}
    return {
        "name": task_name(task),
        "chart": survival_chart(groups.low, groups.high),
        "p": "not defined (a group is empty or nobody relapsed)" if groups.p is None else p_value(groups.p),
        "threshold": None if groups.threshold is None else number(groups.threshold),
        "groups": [
            {"name": name, "n": count(c.at_risk[0]), "events": count(c.events), "end": number(c.survival[-1], 2)}
            for name, c in (("low", groups.low), ("high", groups.high))
        ],
    }


def _traffic(step: StepRecord, run: RunRecord) -> dict[str, Any] | None:
    per_reply = traffic_per_reply(step)
    if per_reply is None:
        return None
    replies = [c for r in step.rounds for c in r.get("bytes", {}).values()]
    return {
        "name": task_name(step.name),
        "up": per_reply[0],
        "down": per_reply[1],
        "replies": len(replies),
        "total": sum(c["up"] + c["down"] for c in replies),
        "adapter": step.started.get("adapter_bytes"),
        "released": run.released_bytes.get(step.name),
    }


def _decades(values: Sequence[float]) -> dict[str, Any]:
    """A log axis from a whole decade below all values to a little above them, with one tick per decade."""
    positive = [v for v in values if v > 0] or [1.0]
    low, high = math.floor(math.log10(min(positive)) - 0.3), math.log10(max(positive)) + 0.45
    decades = range(low, math.floor(high) + 1)
    marks = [{"left": f"{100 * (d - low) / (high - low):.2f}", "label": size(10.0**d)} for d in decades]
    return {"low": low, "high": high, "ticks": marks}


def _width(value: float, axis: Mapping[str, Any]) -> str:
    place = (math.log10(max(value, 1.0)) - axis["low"]) / (axis["high"] - axis["low"])
    return f"{100 * min(1.0, max(0.0, place)):.2f}"


def _bars(entry: Mapping[str, Any], axis: Mapping[str, Any]) -> dict[str, Any]:
    both = (("up", "center to server"), ("down", "server to center"))
    bars = [{"kind": d, "text": size(entry[d]), "what": what, "width": _width(entry[d], axis)} for d, what in both]
    return {"name": entry["name"], "bars": bars}


def _full(name: str, value: float, axis: Mapping[str, Any]) -> dict[str, Any]:
    bar = {"kind": "full", "text": size(value), "what": "each way, if it travelled", "width": _width(value, axis)}
    return {"name": name, "bars": [bar]}


def _phases(run: RunRecord) -> list[dict[str, str]]:
    """Up, down and total of each phase that sent something, all steps and centers."""
    found = []
    for phase, what in PHASES.items():
        own = [row for row in run.traffic if row["phase"] == phase]
        if own:
            up, down = (sum(row[f"bytes_{way}"] for row in own) for way in ("up", "down"))
            found.append({"name": sentence(what), "up": size(up), "down": size(down), "total": size(up + down)})
    return found


def _included(run: RunRecord) -> str:
    """One sentence on what the total holds, and on what an older ledger did not count."""
    counted = {row["phase"] for row in run.traffic}
    told = f"Included: {'; '.join(what for phase, what in PHASES.items() if phase in counted)}."
    is_old = any("bytes" not in step.started for step in run.steps if step.started)
    return f"{told} An older version wrote this ledger and did not count enrolment and tests." if is_old else told


def _table_row(entry: Mapping[str, Any], whole: float | None, released: float | None) -> dict[str, Any]:
    sizes = {name: size(entry[name]) for name in ("up", "down", "total", "adapter", "released")}
    return {
        "name": entry["name"],
        **sizes,
        "replies": count(entry["replies"]),
        "share": share(entry["up"], whole) if whole else None,
        "released_share": share(entry["released"], released) if entry["released"] and released else None,
    }
