"""What an adapter scored on test cases, by its key: a number that travels with it, or plain words that there is none.

An adapter's score is the pooled one of the step that learned it, right after that step; a refitted one's is what the
remaining centers said of it (``step_rescored``). Whoever uses an adapter sees it: an export's manifest and README,
and `predict`'s console and predictions.json.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from common.metrics.estimate import Estimate
from common.metrics.names import metric_name

NEVER = "never scored: nobody has tested this adapter on patients"
POOLED = "pooled"
Card = dict[str, Any]
Event = Mapping[str, Any]


def known_by_key(events: Iterable[Event]) -> dict[str, dict[str, Any]]:
    """Adapter's key -> what its outputs are read by (a temperature, a baseline hazard), of a run's ledger."""
    return {event["key"]: event.get("known", {}) for event in _learned(events)}


def scores_by_key(events: Iterable[Event]) -> dict[str, Card]:
    """Adapter's key -> its test scores: ``date``, ``centers`` and ``modes``, where the fullest mode stands last.

    A mode holds ``metric``, ``value``, ``low``, ``high`` and ``n``; without a value it was suppressed or not defined.
    ``noise`` stands beside a score that carries some: its standard deviation by noise alone.
    """
    primary: dict[str, str] = {}
    found: dict[str, Card] = {}
    for event in _learned(events):
        primary |= event.get("primary", {})
        task = event.get("task", event["step"])
        rows = [row for row in event.get("scores", []) if _is_own(row, event["step"], task, primary.get(task))]
        modes = {row.get("mode") or "": _score(row) for row in sorted(rows, key=_fullness)}
        if modes:
            centers = list(event.get("evaluated_at", []))
            found[event["key"]] = {"date": str(event.get("time", ""))[:10], "centers": centers, "modes": modes}
    return found


def score_in(card: Card | None, mode: str = "") -> Card | None:
    """The score of a mode, or of the fullest one where that mode was not scored; None: never scored.

    Returns:
        ``metric``, ``value``, ``low``, ``high``, ``n``, ``mode``, ``centers`` and ``date``.
    """
    if not card or not card["modes"]:
        return None
    name = mode if mode in card["modes"] else list(card["modes"])[-1]
    return {**card["modes"][name], "mode": name, "centers": card["centers"], "date": card["date"]}


def in_words(score: Card | None) -> str:
    """``tested: C-index 0.664 [0.540, 0.771] on 25 cases of CHUM, CHUP (CT), 2026-11-28``, or why there is none."""
    if score is None:
        return NEVER
    shown = f" ({score['mode']})" if score["mode"] else ""
    where = f"{', '.join(score['centers']) or 'no center'}{shown}, {score['date']}"
    name = metric_name(score["metric"])
    if score["value"] is None and score["n"]:
        return f"not scored: {name} is not defined on the {score['n']} test cases of {where}"
    if score["value"] is None:
        return f"not scored: {name} was suppressed or not answered at {where}, for too few test cases"
    found = Estimate(score["value"], score["low"], score["high"], int(score["n"] or 0))
    if score.get("noise") is not None:
        return f"tested: {name} {found.text()}, with noise of a standard deviation of {score['noise']:.3f}, at {where}"
    return f"tested: {name} {found.text()} on {found.n} cases of {where}"


def _learned(events: Iterable[Event]) -> list[Event]:
    return [event for event in events if event["kind"] in ("step_finished", "step_rescored")]


def _is_own(row: Event, step: str, task: str, metric: str | None) -> bool:
    return (row["step"], row["task"], row["center"]) == (step, task, POOLED) and metric in (None, row["metric"])


def _fullness(row: Event) -> int:
    return len((row.get("mode") or "").split("+"))


def _score(row: Event) -> Card:
    noise = {"noise": row["noise"]} if row.get("noise") is not None else {}
    return {"metric": row["metric"], **{name: row.get(name) for name in ("value", "low", "high", "n")}, **noise}
