"""Scores by subgroup as tables: a line for each declared level, with its interval, or that it is too few to say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from server.evaluation.matrix import POOLED
from server.report.verdict.rules import FEWEST
from server.report.words import count, metric_name, number, task_name

LITTLE = "too few to say"
WITHHELD = "kept back at every center, or nobody is of it"
Row = Mapping[str, Any]

NAMES = {"hpv": "HPV", "t_stage": "T stage"}


def subgroup_tables(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One table for each task and set of modalities: levels down, metrics of each arm across, over all centers that
    tell."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row["center"] == POOLED:
            found.setdefault((row["task"], row.get("mode") or ""), []).append(row)
    return [_table(*key, own) for key, own in found.items()]


def level_name(level: str) -> str:
    """``hpv=positive`` -> ``HPV: positive``."""
    group, _, name = level.partition("=")
    return f"{NAMES.get(group, group.capitalize())}: {name}"


def _table(task: str, mode: str, rows: Sequence[Row]) -> dict[str, Any]:
    across = list(dict.fromkeys((row["metric"], row.get("arm", "")) for row in rows))
    cells: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        cells.setdefault((row["subgroup"], row["metric"], row.get("arm", "")), []).append(row)
    return {
        "task": task_name(task),
        "mode": mode.replace("+", " + "),
        "columns": [{"metric": metric_name(metric), "arm": arm} for metric, arm in sorted(across)],
        "rows": [
            {"name": level_name(level), "cells": [_cell(cells.get((level, *column), [])) for column in sorted(across)]}
            for level in dict.fromkeys(row["subgroup"] for row in rows)
        ],
    }


def _cell(rows: Sequence[Row]) -> dict[str, str]:
    """One cell; of several folds or seeds their mean, without an interval."""
    told = [row for row in rows if row["value"] is not None]
    if not told:
        n = [row["n"] for row in rows if row["n"]]
        return {"text": LITTLE, "interval": "", "n": f"n = {count(sum(n))}" if n else WITHHELD}
    patients = sum(row["n"] or 0 for row in told)
    ends = [told[0].get("low"), told[0].get("high")] if len(told) == 1 else [None]
    interval = f"{number(ends[0])} to {number(ends[1])}" if None not in ends else ""
    return {
        "text": number(fmean(row["value"] for row in told)),
        "interval": LITTLE if patients < FEWEST else interval,
        "n": f"n = {count(patients)}",
    }
