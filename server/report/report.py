"""report.html: one self-contained page per run, made from the ledger's events alone (images come from the caller)."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from common.errors import LedgerError
from server.evaluation.matrix import Row, columns, with_intervals
from server.report import figures, story, tables
from server.report.ceilings import ceiling_notes
from server.report.lineages import lineages
from server.report.paired import paired_tables
from server.report.reading.record import Event, RunRecord, join_runs, read_run
from server.report.subgroups import subgroup_tables
from server.report.tables import Arm, Comparison, comparison_of
from server.report.verdict.lines import verdict
from server.report.verdict.rules import Evidence, bad_news
from server.report.words import duration, minimums, size, task_name

__all__ = ["Comparison", "Overlay", "bad_news_of", "comparison_of", "write_report"]

TEMPLATE = Path(__file__).with_name("template.html")
STYLE = Path(__file__).with_name("style.css")

Events = Sequence[Event]
Source = Events | Mapping[str, Events | Sequence[Events] | Mapping[str, Any]]


@dataclass
class Overlay:
    """A picture with its caption, say CT, PET, prediction and truth of one case; ``png`` is the file's bytes."""

    title: str
    caption: str
    png: bytes


def write_report(
    path: str | Path,
    source: Source,
    *,
    overlays: Sequence[Overlay] = (),
    comparisons: Sequence[Comparison] = (),
    patients: Sequence[Row] = (),
    notes: Sequence[str] = (),
    command: str | None = None,
    subgroups: Sequence[Row] = (),
) -> Path:
    """Write the page; the same input gives the same bytes.

    Args:
        path: where to; folders are made.
        source: one run's events; or arm -> events, a list of event lists (folds or seeds), or a results dict. The first
            arm that has events is the run the page tells about; the others stand beside it in the table of arms.
        overlays: pictures, shown in this order.
        comparisons: paired differences, grouped by task and metric.
        patients: score rows of the run with intervals over patients, where one process saw them.
        notes: plain sentences, shown with the results.
        command: what repeats the run; default: composed from curriculum and seed.
        subgroups: score rows by subgroup, of several arms; default: the run's own.

    Raises:
        LedgerError: when no arm has events, or they are not a run's.
    """
    run, arms = _read(source)
    evidence = Evidence(run, arms[0], comparisons, patients)
    page = _page(evidence, arms, notes=notes, command=command, subgroups=subgroups)
    page["overlays"] = [{"title": o.title, "caption": o.caption, "data": _inline(o.png)} for o in overlays]
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_render(page), encoding="utf-8")
    return path


def bad_news_of(
    source: Source, *, comparisons: Sequence[Comparison] = (), patients: Sequence[Row] = ()
) -> list[dict[str, str]]:
    """What the page says against the run, as results.json holds it; arguments as for `write_report`."""
    run, arms = _read(source)
    return [news.row() for news in bad_news(Evidence(run, arms[0], comparisons, patients))]


def _read(source: Source) -> tuple[RunRecord, list[Arm]]:
    """The run to tell about, and every arm's scores, that run's first."""
    if not isinstance(source, Mapping):
        source = {read_run(source).arm: source}
    runs = {name: _run(given) for name, given in source.items() if not isinstance(given, Mapping)}
    if not runs:
        raise LedgerError("The report tells about a run, so at least one arm must be given as its events.")
    main = next(iter(runs))
    arms = [_arm_of_run(name, run) for name, run in runs.items()]
    arms += [_arm_of_results(name, given) for name, given in source.items() if isinstance(given, Mapping)]
    order = list(source)
    return runs[main], sorted(arms, key=lambda arm: (arm.name != main, order.index(arm.name)))


def _run(given: Any) -> RunRecord:
    folds = given if given and not isinstance(given[0], Mapping) else [given]
    return join_runs([read_run(events) for events in folds])


def _arm_of_run(name: str, run: RunRecord) -> Arm:
    return Arm(name, run.rows, run.metrics, run.learned(), run.changed_bits)


def _arm_of_results(name: str, results: Mapping[str, Any]) -> Arm:
    """One arm of a results dict: its rows are those of the same name, or all of them where there is only one arm."""
    named = {row.get("arm") for row in results["scores"]}
    arm = name if name in named else next(iter(results.get("metrics", {})), name)
    rows = [row for row in results["scores"] if len(named) < 2 or row.get("arm") == arm]
    metrics = results.get("metrics", {}).get(arm) or {row["task"]: row["metric"] for row in reversed(rows)}
    bits = results["summary"].get(arm, {}).get("changed_bits")
    return Arm(name, rows, metrics, results.get("learned", {}).get(arm, {}), bits)


def _page(
    evidence: Evidence, arms: Sequence[Arm], *, notes: Sequence[str], command: str | None, subgroups: Sequence[Row]
) -> dict[str, Any]:
    run, main = evidence.run, evidence.arm
    return {
        "style": STYLE.read_text(encoding="utf-8"),
        "run": run.begun,
        "arm": main.name,
        "date": run.begun["time"][:10],
        "title": story.title(run),
        "verdict": verdict(evidence, bad_news(evidence)),
        "sentences": story.sentences(run),
        "synthetic": story.is_synthetic(run),
        "tiles": story.tiles(run, main),
        "warnings": story.warnings(run),
        "notes": [*notes, *ceiling_notes(run.rows)],
        "steps": tables.curriculum(run),
        "matrix": tables.matrix(main.rows, main),
        "lineages": lineages(run, main),
        "center_matrices": tables.center_matrices(main),
        "centers": tables.centers(replace(main, rows=with_intervals(main.rows, evidence.patients))),
        "paired": paired_tables(run.compared),
        "subgroups": subgroup_tables(subgroups or run.subgroups),
        "arms": tables.arms(arms),
        "comparisons": tables.comparisons(evidence.comparisons),
        "learning": figures.learning(run),
        "survival": figures.survival(run),
        "calibration": figures.calibration(run),
        "forests": figures.forests(run, columns(main.rows, main.metrics)),
        "communication": figures.communication(run),
        "folds": run.folds,
        "environment": _environment(run),
        "phases": _phases(run),
        "command": command or run.begun.get("command") or _command(run),
    }


def _environment(run: RunRecord) -> list[tuple[str, str]]:
    begun, backbone, data = run.begun, run.begun.get("backbone", {}), run.begun.get("data", {})
    known = {
        "Run": begun["run"],
        "Curriculum": begun["curriculum"],
        "Seed": begun["seed"],
        "Frozen model": f"{backbone.get('kind', '')} {backbone.get('config', '')}".strip(),
        "Text side": backbone.get("text"),
        "Model size": size(backbone.get("bytes")),
        "Model digest": backbone.get("digest"),
        "Base before": begun["base"],
        "Base after": (run.verified or {}).get("base_after", "not verified"),
        "Data": f"{data.get('kind', '')}, {data.get('root', '')}".strip(", "),
        "Fewest patients": minimums(data),
    }
    return [(k, str(v)) for k, v in (known | dict(begun.get("environment", {}))).items() if v not in (None, "")]


def _phases(run: RunRecord) -> list[dict[str, Any]]:
    """Seconds per phase and step, over all rounds."""
    rows = []
    for step in run.steps:
        spent = [r.get("seconds", {}) for r in step.rounds]
        if spent:
            parts = [sum(s.get(phase, 0.0) for s in spent) for phase in ("train", "validate", "aggregate", "overhead")]
            beyond = f"{100 * sum(parts[2:]) / sum(parts):.1f} %" if sum(parts) else "—"
            rows.append({"name": task_name(step.name), "cells": [*(duration(p) for p in parts), beyond]})
    return rows


def _command(run: RunRecord) -> str:
    return f"python -m simulations run curriculum={run.begun['curriculum']} seed={run.begun['seed']}"


def _inline(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def _render(page: Mapping[str, Any]) -> str:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(page)
