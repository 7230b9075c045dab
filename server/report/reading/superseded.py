"""Superseded: scores of a model that a withdrawal replaced are no scores of the run any more.

A ledger is never rewritten, so it keeps them; whoever reads a run's rows takes them through `current`, which puts the
refitted model's in their place, or, where nobody has scored it yet, rows without a value that say why.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from server.evaluation.matrix import START

Event = Mapping[str, Any]
Row = dict[str, Any]
REFITTED = ("subtracted", "refit")  # how a withdrawal deals with a step that it takes the center out of


@dataclass
class Replaced:
    """One task whose model a withdrawal replaced.

    Args:
        left: the centers that it was fitted without, in the order of leaving.
        before: labels of the blocks that hold scores of the older model.
        rescored: the remaining centers' scores of the new one; None as long as nobody has asked for them.
    """

    left: list[str] = field(default_factory=list)
    before: set[str] = field(default_factory=set)
    rescored: Event | None = None

    @property
    def why(self) -> str:
        """Why there is no score, in words."""
        return f"fitted again without {', '.join(self.left)} and not scored since"


def replaced(events: Iterable[Event]) -> dict[str, Replaced]:
    """By task, what withdrawals replaced; steps trained by averaging, which cannot be undone, are not among them."""
    found: dict[str, Replaced] = {}
    blocks: set[str] = set()
    for event in events:
        if event["kind"] == "step_finished":
            blocks.add(event["step"])
        elif event["kind"] == "center_withdrawn":
            for step in (step for step, how in event["steps"].items() if how in REFITTED):
                one = found.setdefault(step, Replaced())
                one.left.append(event["center"])
                one.before, one.rescored = set(blocks), None
        elif event["kind"] == "step_rescored" and event["step"] in found:
            found[event["step"]].before, found[event["step"]].rescored = set(blocks), event
    return found


def current(rows: Sequence[Row], by_task: Mapping[str, Replaced]) -> tuple[list[Row], list[Row]]:
    """(the rows that hold, the superseded ones with ``without``: the centers that the newer model was fitted without).

    The state did not change between the blocks that a rescoring replaces, so its rows stand in each of them.
    """
    kept: list[Row] = []
    old: list[Row] = []
    for label in dict.fromkeys(row["step"] for row in rows):
        block = [row for row in rows if row["step"] == label]
        for task in dict.fromkeys(row["task"] for row in block):
            own, one = [row for row in block if row["task"] == task], by_task.get(task)
            if one is None or label == START or label not in one.before:
                kept += own
                continue
            old += [row | {"without": list(one.left)} for row in own]
            kept += _silent(own, one) if one.rescored is None else [r | {"step": label} for r in one.rescored["scores"]]
    return kept, old


def _silent(rows: Sequence[Row], one: Replaced) -> list[Row]:
    """The same rows without values, and without those of the centers that left."""
    bare = [{name: value for name, value in row.items() if name not in ("low", "high", "missing")} for row in rows]
    return [row | {"value": None, "n": None, "why": one.why} for row in bare if row["center"] not in one.left]
