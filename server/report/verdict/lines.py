"""The verdict, first on the page: one line for each task with its score, and under it what speaks against it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from server.evaluation.matrix import Column, Row
from server.report.verdict.rules import Evidence, News
from server.report.words import DASH, count, metric_name, number, plural, sentence, spelled, task_name

AGAINST = (
    "no_score",
    "guessing",
    "nothing_found",
    "worse_than_start",
    "reversed_groups",
    "drift",
)  # with one of these it is no result


def verdict(evidence: Evidence, news: Sequence[News]) -> dict[str, Any]:
    """For the template: a headline, what is wrong with the whole run, and the tasks."""
    lines = [_line(evidence, column, [n for n in news if n.task == column.key]) for column in evidence.columns]
    whole = [n.text for n in news if not n.task]
    known = {column.key for column in evidence.columns}
    whole += [f"{task_name(n.task)}: {n.text}" for n in news if n.task and n.task not in known]
    return {"headline": _headline(evidence, news), "whole": whole, "tasks": lines}


def _line(evidence: Evidence, column: Column, own: Sequence[News]) -> dict[str, Any]:
    row = evidence.pooled(column)
    tone = "bad" if any(n.rule in AGAINST for n in own) else "mixed" if own else "good"
    return {
        "name": task_name(column.key), "mode": column.mode.replace("+", " + "), "score": score_text(column, row),
        "cases": _cases(row), "tone": tone, "said": [n.text for n in own],
    }  # fmt: skip


def score_text(column: Column, row: Row | None) -> str:
    """``C-index 0.664 [0.540, 0.771]``."""
    if row is None or row["value"] is None:
        return f"{metric_name(column.metric)} {DASH}"
    low, high = row.get("low"), row.get("high")
    ends = f" [{number(low)}, {number(high)}]" if low is not None and high is not None else ""
    ends = f" (± {number(row['noise'])} by noise)" if row.get("noise") is not None else ends
    return f"{metric_name(column.metric)} {number(row['value'])}{ends}"


def _cases(row: Row | None) -> str:
    n = None if row is None else row["n"]
    return "" if n is None else f"{count(n)} test case{'' if n == 1 else 's'}"


def _headline(evidence: Evidence, news: Sequence[News]) -> str:
    """``Of three tasks, two are shown to be learned.``"""
    tasks = [column.key for column in evidence.columns]
    if not tasks:
        return "No step has been finished, so there is nothing to judge yet."
    against = {n.task for n in news if n.rule in AGAINST and n.task}
    held = [key for key in tasks if key not in against]
    if any(n.rule == "drift" and not n.task for n in news):
        return "Do not use these numbers before what is said first below is settled."
    if len(held) == len(tasks):
        if news:
            return f"Read {_scores_of(len(tasks))} with what is said below."
        return f"No rule speaks against {_scores_of(len(tasks))}."
    if not held:
        return f"Do not rely on {_scores_of(len(tasks))}."
    return sentence(f"{plural(len(against), 'task')} of {spelled(len(tasks))} came out with a score not to rely on.")


def _scores_of(tasks: int) -> str:
    return "the score of the one task" if tasks == 1 else f"the scores of the {plural(tasks, 'task')}"
