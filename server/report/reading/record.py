"""RunRecord: one run's events, gathered step by step, so that results, report and console read them the same way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from common.config.options import STATISTICS
from common.errors import LedgerError
from common.metrics import LOWER_IS_BETTER
from server.evaluation.course import course_of
from server.evaluation.matrix import columns
from server.evaluation.verdicts import compared_of
from server.report.reading.superseded import Replaced, current, replaced
from server.report.reading.traffic import traffic

Event = Mapping[str, Any]
STEP_EVENTS = ("step_started", "start_validated", "round_finished", "newton_round", "step_finished")


@dataclass
class StepRecord:
    """A step's plan and everything that happened in it; ``finished`` is None while it runs."""

    name: str
    plan: Mapping[str, Any] = field(default_factory=dict)
    started: Event = field(default_factory=dict)
    rounds: list[Event] = field(default_factory=list)
    questions: list[Event] = field(default_factory=list)  # of an exact fit
    finished: Event | None = None
    validated: Event = field(default_factory=dict)  # its start, where that was

    @property
    def course(self) -> list[float | None]:
        """What the start and then each round is worth by its validation cases; larger is better."""
        metrics = {event["validation"].get("metric") for event in self.rounds if "validation" in event}
        return course_of(self.validated, self.rounds, sign=-1 if metrics & LOWER_IS_BETTER else 1)

    @property
    def centers(self) -> list[str]:
        return list(self.started.get("centers", []))

    @property
    def task(self) -> str:
        """The task's key in the score rows."""
        return (self.finished or {}).get("task") or self.plan.get("task") or self.name

    @property
    def mode(self) -> str:
        return "+".join(self.plan.get("modalities", []))


@dataclass
class RunRecord:
    """One run (one arm). A resumed run may hold an event twice; the later one counts."""

    begun: Event
    steps: list[StepRecord]
    rows: list[dict[str, Any]]  # row 0 and one block per finished step
    metrics: dict[str, str]  # task -> primary metric, in the order in which the tasks were learned
    verified: Event | None
    curves: dict[str, dict[str, Any]]  # task -> grouped survival counts, from the last step that reported them
    released_bytes: Mapping[str, int]  # step -> bytes of the same adapter on the released backbone
    released_model_bytes: int | None
    traffic: list[dict[str, Any]] = field(default_factory=list)  # bytes by step, phase, round and center
    folds: int = 1  # runs joined into this record
    superseded: list[dict[str, Any]] = field(default_factory=list)  # rows of models that a withdrawal replaced
    subgroups: list[dict[str, Any]] = field(default_factory=list)  # rows by subgroup of patients, of the last models
    withdrawn: dict[str, dict[str, str]] = field(default_factory=dict)  # center that left -> step -> how it was undone
    compared: list[dict[str, Any]] = field(default_factory=list)  # two models on the same patients, as results.json
    rejected: list[Event] = field(default_factory=list)  # answers that the guards stopped, and centers lost in a fit

    @property
    def arm(self) -> str:
        return self.begun.get("arm") or "federated"

    @property
    def changed_bits(self) -> int | None:
        """Bits that differ when a fresh process rebuilds the finished steps; None: not checked."""
        return None if self.verified is None else sum(self.verified["changed_bits"].values())

    @property
    def finished(self) -> list[StepRecord]:
        return [step for step in self.steps if step.finished is not None]

    def learned(self) -> dict[str, str]:
        """Column key -> the step that learned it, matched by task and then by modalities."""
        homes = {}
        for column in columns(self.rows, self.metrics):
            own = [step for step in self.finished if step.task == column.task]
            exact = [step for step in own if step.mode == column.mode]
            if found := exact or own:
                homes[column.key] = found[0].name
        return homes


def read_run(events: Iterable[Event]) -> RunRecord:
    """Gather one run's events.

    Raises:
        LedgerError: when there is no ``run_started`` event.
    """
    events = list(events)
    begun = next((e for e in events if e["kind"] == "run_started"), None)
    if begun is None:
        raise LedgerError(f"No 'run_started' among {len(events)} events: this is not the ledger of a run.")
    steps = _steps(events, begun.get("steps", {}))
    newer = replaced(events)
    rows, superseded = current(_rows(events, steps), newer)
    return RunRecord(
        begun=begun,
        steps=steps,
        rows=rows,
        metrics=_metrics(steps, rows),
        verified=_last(events, "verified"),
        curves=_curves(steps, newer),
        released_bytes=_field(events, "released_bytes") or {},
        released_model_bytes=_field(events, "released_model_bytes"),
        traffic=traffic(events),
        superseded=superseded,
        subgroups=_subgroups(steps, newer),
        compared=compared_of(events),
        withdrawn={e["center"]: dict(e["steps"]) for e in events if e["kind"] == "center_withdrawn"},
        rejected=[e for e in events if e["kind"] in ("reply_rejected", "newton_lost")],
    )


def join_runs(runs: Sequence[RunRecord]) -> RunRecord:
    """Folds or seeds of one arm as one record: all score rows, survival counts and changed bits summed, base compared.

    Rows without a ``fold`` get the run's place as one. Rounds, bytes and environment are the first run's.
    """
    first = runs[0]
    if len(runs) == 1:
        return first
    rows = [{"fold": fold} | row for fold, run in enumerate(runs) for row in run.rows]
    subgroups = [{"fold": fold} | row for fold, run in enumerate(runs) for row in run.subgroups]
    curves = {task: _summed([run.curves[task] for run in runs if task in run.curves]) for task in first.curves}
    verified = _joined_verification([run.verified for run in runs])
    return replace(first, rows=rows, curves=curves, verified=verified, folds=len(runs), subgroups=subgroups)


def _summed(counts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Survival counts of disjoint patients on one grid; each fold has its own threshold, so none is kept."""
    if len({tuple(c.get("grid_days", ())) for c in counts}) > 1:
        raise LedgerError("The folds' survival counts stand on different time grids, so they cannot be summed.")

    def total(name: str) -> list[list[int]]:
        return [[sum(cell) for cell in zip(*(c[name][g] for c in counts), strict=True)] for g in (0, 1)]

    shared = {name: counts[0][name] for name in ("grid_days", "reliability_days") if name in counts[0]}
    if all("at_risk" in c for c in counts):
        shared |= {"at_risk": total("at_risk"), "events": total("events")}
    if all("reliability" in c for c in counts):
        shared["reliability"] = {
            name: [sum(cell) for cell in zip(*(c["reliability"][name] for c in counts), strict=True)]
            for name in counts[0]["reliability"]
        }
    return shared


def _joined_verification(parts: Sequence[Event | None]) -> Event | None:
    """Changed bits summed per step; the first base that differs from its run's is the one shown."""
    known = [part for part in parts if part is not None]
    if len(known) < len(parts) or not known:
        return None
    steps = dict.fromkeys(step for part in known for step in part["changed_bits"])
    bits = {step: sum(part["changed_bits"].get(step, 0) for part in known) for step in steps}
    after = next((p["base_after"] for p in known if p["base_after"] != known[0]["base_after"]), known[0]["base_after"])
    return {**known[0], "changed_bits": bits, "base_after": after, "seconds": sum(p.get("seconds", 0.0) for p in known)}


def _steps(events: Sequence[Event], plans: Mapping[str, Any]) -> list[StepRecord]:
    learned = {name: plan for name, plan in plans.items() if plan.get("task") != STATISTICS}
    steps = {name: StepRecord(name, plan) for name, plan in learned.items()}
    for event in events:
        if event["kind"] not in STEP_EVENTS:
            continue
        step = steps.setdefault(event["step"], StepRecord(event["step"]))
        if event["kind"] == "step_started":
            step.started = event
        elif event["kind"] == "newton_round":
            step.questions.append(event)
        elif event["kind"] == "start_validated":
            step.validated = event
        elif event["kind"] == "step_finished":
            step.finished = event
        else:
            step.rounds = [r for r in step.rounds if r["round"] != event["round"]] + [event]
    return list(steps.values())


def _rows(events: Sequence[Event], steps: Sequence[StepRecord]) -> list[dict[str, Any]]:
    before = {event.get("task"): event["scores"] for event in events if event["kind"] == "start_scores"}
    blocks = list(before.values())  # one event per step; a resumed step says it again
    blocks += [(step.finished or {}).get("scores", []) for step in steps]
    return [dict(row) for block in blocks for row in block]


def _curves(steps: Sequence[StepRecord], newer: Mapping[str, Replaced]) -> dict[str, dict[str, Any]]:
    """By task, from the last step that reported them; of a model that was replaced the newer one's, or none."""
    found = {task: c for step in steps for task, c in ((step.finished or {}).get("curves") or {}).items()}
    for task, one in newer.items():
        found.pop(task, None)
        found |= (one.rescored or {}).get("curves", {})
    return found


def _subgroups(steps: Sequence[StepRecord], newer: Mapping[str, Replaced]) -> list[dict[str, Any]]:
    """By task, from the last step that told them; of a model that was replaced the newer one's, or none."""
    found: dict[str, list[dict[str, Any]]] = {}
    for step in steps:
        own: dict[str, list[dict[str, Any]]] = {}
        for row in (step.finished or {}).get("subgroups") or []:
            own.setdefault(row["task"], []).append(dict(row))
        found |= own
    for task, one in newer.items():
        if task in found:
            found[task] = [dict(row) for row in (one.rescored or {}).get("subgroups") or []]
    return [row for rows in found.values() for row in rows]


def _metrics(steps: Sequence[StepRecord], rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Each task's primary metric: as the finished steps say, else as the plan says, else the first one scored."""
    metrics: dict[str, str] = {}
    for step in steps:
        if step.finished is not None:
            stated = step.finished.get("metrics") or step.finished.get("primary") or {}
            first = next((r["metric"] for r in rows if r["task"] == step.task), None)
            own = stated.get(step.task) or step.plan.get("metric") or first
            for task, metric in ({step.task: own} | dict(stated)).items():
                if metric:
                    metrics.setdefault(task, metric)
    return metrics


def _last(events: Sequence[Event], kind: str) -> Event | None:
    return next((e for e in reversed(events) if e["kind"] == kind), None)


def _field(events: Sequence[Event], name: str) -> Any:
    return next((e[name] for e in reversed(events) if e.get(name) is not None), None)
