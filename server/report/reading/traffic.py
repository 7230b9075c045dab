"""What crossed between server and centers in a run, told apart by phase; read from the ledger's events."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

Event = Mapping[str, Any]
Row = dict[str, Any]

ENROL, START, ROUNDS, REPEATED, SUMS, TEST = "enrol", "start", "rounds", "repeated", "sums", "test"
GROWN = "grown"
PHASES = {
    ENROL: "asking the centers what they hold for a step",
    START: "validating a step's start",
    ROUNDS: "rounds of training and validation",
    REPEATED: "rounds of an attempt that failed, or that were stopped, and were repeated",
    SUMS: "sums that a step is solved from, or that later steps go on from",
    TEST: "scoring test cases, and the validation cases that calibrate a step",
    GROWN: "sending a finished step to be merged into the frozen model",
}
_ASKED = {
    "base_grown": GROWN,
    "grid_chosen": ENROL,
    "step_started": ENROL,
    "step_refitted": ENROL,
    "step_rescored": ENROL,
    "start_validated": START,
    "newton_round": SUMS,
    "keepsakes_stored": SUMS,
    "keepsakes_refused": SUMS,
    "start_made": SUMS,
    "scored": TEST,
    "statistics_told": SUMS,
    "compared": TEST,
}


def traffic(events: Iterable[Event]) -> list[Row]:
    """Bytes up and down by step, phase, round and center; rows of one step stand together, in the order of `PHASES`.

    A round that stands twice in the ledger counts once, unless its step failed in between: then both crossed. Every
    other exchange crossed as often as it stands there. Older ledgers hold neither enrolment nor
    tests.
    """
    events = list(events)
    rows: dict[tuple[str, str, int, str], Row] = {}
    for step, phase, number, sent in _exchanges(events):
        for center, ways in sent.items():
            empty = {"step": step, "phase": phase, "round": number, "center": center, "bytes_up": 0, "bytes_down": 0}
            row = rows.setdefault((step, phase, number, center), empty)
            row["bytes_up"] += ways["up"]
            row["bytes_down"] += ways["down"]
    steps, phases = list(dict.fromkeys(event.get("step") for event in events)), list(PHASES)
    return sorted(rows.values(), key=lambda row: (steps.index(row["step"]), phases.index(row["phase"])))


def bytes_of_rounds(events: Iterable[Event], step: str, way: str) -> list[list[int]]:
    """Of each round of a step, in its order, what crossed for each center; one that asked nobody is left out.

    Args:
        way: ``up`` or ``down``.
    """
    rounds = (event["bytes"] for event in events if event["kind"] == "round_finished" and event["step"] == step)
    return [[ways[way] for ways in sent.values()] for sent in rounds if sent]


def typical_bytes(events: Iterable[Event], step: str, way: str) -> float | None:
    """Of a round and center: the median over a step's rounds of the mean over centers; None without a round."""
    each = [statistics.mean(sent) for sent in bytes_of_rounds(events, step, way)]
    return statistics.median(each) if each else None


def total(rows: Iterable[Mapping[str, Any]]) -> int:
    """Bytes both ways."""
    return sum(row["bytes_up"] + row["bytes_down"] for row in rows)


def _exchanges(events: Sequence[Event]) -> Iterator[tuple[str, str, int, Mapping[str, Mapping[str, int]]]]:
    """Step, phase, round and bytes by center."""
    attempts: dict[str, int] = {}
    rounds: dict[tuple[str, int], dict[int, Event]] = {}  # step, round -> attempt -> event
    for event in events:
        kind, step = event["kind"], str(event.get("step", ""))
        if kind == "step_failed":
            attempts[step] = attempts.get(step, 0) + 1
        elif kind == "round_finished":
            rounds.setdefault((step, event["round"]), {})[attempts.get(step, 0)] = event
        elif kind == "round_stopped":
            yield step, ENROL, 0, event.get("joining_bytes", {})
            yield step, REPEATED, event["round"], event.get("bytes", {})
        elif kind in _ASKED:
            yield step, _ASKED[kind], event["round"] if kind == "newton_round" else 0, event.get("bytes", {})
    for (step, number), tried in rounds.items():
        for attempt, event in tried.items():
            yield step, ENROL, 0, event.get("joining_bytes", {})
            yield step, ROUNDS if attempt == max(tried) else REPEATED, number, event.get("bytes", {})
