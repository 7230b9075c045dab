"""results.json: one run, or several arms side by side, in the form of ``results.schema.json``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from common.config.limits.budget import spent
from common.errors import LedgerError
from server.evaluation.course import area_under, rounds_to
from server.evaluation.matrix import summary
from server.report.lineages import written
from server.report.reading.record import Event, RunRecord, StepRecord, read_run

FORMAT = 1
SCHEMA = Path(__file__).with_name("results.schema.json")
NOT_VERIFIED = "not verified"
PHASES = ("train", "validate", "aggregate", "overhead")

Results = dict[str, Any]


def results(events: Iterable[Event], *, kind: str = "federated") -> Results:
    """One arm's results, valid against ``results.schema.json``.

    Args:
        events: the ledger's events, in order.
        kind: ``federated``, ``centralized`` or ``local``; also the arm's name where ``run_started`` gives none.

    Beyond the schema it carries ``metrics`` (task -> primary metric), ``learned`` (column -> step) and ``data`` (with
    ``minimum_cases`` and ``minimum_cell``, the fewest patients that the run's centers trained and told results of), and
    every row of ``communication`` has a ``phase`` (`server.report.reading.traffic.PHASES`; the round of what is none is
    0): all that crossed is their sum; ``subgroups`` holds the last models' scores by subgroup of patients, ``lineages``
    the yardsticks of those that several steps wrote. An arm
    without a ``verified`` event has no entry in ``summary`` (the number of changed bits is not known, so it is not
    claimed) and ``base.after`` says "not verified".
    """
    run = read_run(events)
    arm = run.begun.get("arm") or kind
    rows = [{"arm": arm} | row for row in run.rows]
    return {
        "format": FORMAT,
        "run": _identity(run, kind=kind, arm=arm),
        "scores": rows,
        "summary": {}
        if run.changed_bits is None
        else {arm: _summary(rows, run.metrics, run.learned(), run.changed_bits)},
        "training": [
            {"arm": arm, "step": step.name, "rounds": len(step.rounds)} | asdict(spent(step.rounds)) | _course(step)
            for step in run.steps
            if step.rounds
        ],
        "communication": run.traffic,
        "base": _base(run),
        "adapters": {
            step.name: step.finished["key"] for step in run.steps if step.finished and step.finished.get("key")
        },
        "seconds": _seconds(run),
        "environment": dict(run.begun.get("environment", {})),
        "metrics": {arm: run.metrics},
        "learned": {arm: run.learned()},
        "data": dict(run.begun.get("data", {})),
        "lineages": [{"arm": arm} | asdict(one) for one in written(run, rows, run.metrics)],
        "superseded": [{"arm": arm} | row for row in run.superseded],
        "subgroups": [{"arm": arm} | row for row in run.subgroups],
        **({"compared": run.compared} if run.compared else {}),
    }


def merge_results(parts: Sequence[Results], *, name: str, kind: str = "compare") -> Results:
    """Several results as one: arms side by side; folds or seeds of one arm joined (their rows must tell them apart).

    Each arm's summary is computed again from all its rows; changed bits add up. ``base`` is the first part's and
    ``bases`` lists every part's, since a control may stand on another base. Adapters, seconds and bases are named
    ``arm/...`` (``arm#2/...`` for the second part of the same arm); the environment is the first part's.

    Raises:
        LedgerError: when there is nothing to merge.
    """
    if not parts:
        raise LedgerError("There are no results to merge: give at least one arm.")
    first, labels = parts[0], _labels([_arm(part) for part in parts])
    rows = [{"arm": _arm(part)} | row for part in parts for row in part["scores"]]
    compared = [row for part in parts for row in part.get("compared", [])]
    return {
        "format": FORMAT,
        "run": {"name": name, "kind": kind, "curriculum": first["run"]["curriculum"], "seed": first["run"]["seed"]},
        "scores": rows,
        "summary": _merged_summary(parts, rows),
        "training": [row for part in parts for row in part.get("training", [])],
        "communication": [{"arm": _arm(p)} | entry for p in parts for entry in p["communication"]],
        "base": first["base"],
        "bases": {label: part["base"] for label, part in zip(labels, parts, strict=True)},
        "adapters": _prefixed(labels, [part.get("adapters", {}) for part in parts]),
        "seconds": _prefixed(labels, [part["seconds"] for part in parts]),
        "environment": first["environment"],
        "metrics": {arm: metrics for part in parts for arm, metrics in part.get("metrics", {}).items()},
        "learned": {arm: learned for part in parts for arm, learned in part.get("learned", {}).items()},
        "data": first.get("data", {}),
        "lineages": [row for part in parts for row in part.get("lineages", [])],
        "subgroups": [{"arm": _arm(part)} | row for part in parts for row in part.get("subgroups", [])],
        **({"compared": compared} if compared else {}),
    }


def write_results(path: str | Path, content: Results) -> Path:
    """Write results as JSON (NaN is refused: a missing value is null)."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def _identity(run: RunRecord, *, kind: str, arm: str) -> dict[str, Any]:
    begun = run.begun
    return {"name": begun["run"], "kind": kind, "curriculum": begun["curriculum"], "seed": begun["seed"], "arm": arm}


def _summary(
    rows: Sequence[Mapping[str, Any]], metrics: Mapping[str, str], learned: Mapping[str, str], changed_bits: int
) -> dict[str, Any]:
    return {"changed_bits": changed_bits} | summary(rows, metrics, learned=learned)


def _course(step: StepRecord) -> dict[str, Any]:
    return {"rounds_to_95": rounds_to(step.course), "area": area_under(step.course)}


def _base(run: RunRecord) -> dict[str, Any]:
    backbone = run.begun.get("backbone", {})
    after = NOT_VERIFIED if run.verified is None else run.verified["base_after"]
    base = {"root": backbone.get("digest", run.begun["base"]), "before": run.begun["base"], "after": after}
    return base | ({"bytes": backbone["bytes"]} if "bytes" in backbone else {})


def _seconds(run: RunRecord) -> dict[str, float]:
    """Seconds per phase over all rounds, per step, of the verification, and in total (without a killed run's pause)."""
    rounds = [r for step in run.steps for r in step.rounds]
    seconds = {phase: float(sum(r.get("seconds", {}).get(phase, 0.0) for r in rounds)) for phase in PHASES}
    steps = {f"step.{step.name}": float((step.finished or {}).get("seconds", 0.0)) for step in run.finished}
    verify = float((run.verified or {}).get("seconds", 0.0))
    return {"total": sum(steps.values()) + verify, **seconds, "verify": verify, **steps}


def _arm(part: Results) -> str:
    return part["run"].get("arm") or part["run"]["kind"]


def _labels(arms: Sequence[str]) -> list[str]:
    seen: dict[str, int] = {}
    labels = []
    for arm in arms:
        seen[arm] = seen.get(arm, 0) + 1
        labels.append(arm if seen[arm] == 1 else f"{arm}#{seen[arm]}")
    return labels


def _merged_summary(parts: Sequence[Results], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    merged = {}
    for arm in dict.fromkeys(_arm(part) for part in parts):
        mine = [part for part in parts if _arm(part) == arm]
        if all(arm in part["summary"] for part in mine):
            bits = sum(part["summary"][arm]["changed_bits"] for part in mine)
            own = [row for row in rows if row["arm"] == arm]
            merged[arm] = _summary(own, mine[0]["metrics"][arm], mine[0]["learned"][arm], bits)
    return merged


def _prefixed(labels: Sequence[str], parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {f"{label}/{name}": value for label, part in zip(labels, parts, strict=True) for name, value in part.items()}
