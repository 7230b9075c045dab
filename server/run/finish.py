"""After the last step: a fresh process proves that nothing drifted, then results and report are written."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from common.config.run import BackboneSpec
from common.errors import LedgerError
from common.store.bank import AdapterBank
from common.store.ledger import Ledger
from server.evaluation.matrix import as_it_stands, with_intervals, without_counterpart
from server.report.reading.record import Event
from server.report.report import Overlay, bad_news_of, comparison_of, write_report
from server.report.results import results, write_results
from server.run.folder import RunFolder, load_plugins, read_config
from server.run.probe import Verification, verify_run

ROOT = Path(__file__).resolve().parents[2]


def verify_folder(path: Path) -> Verification:
    """Verify a run folder in this process, with the frozen model and seed of its resolved configuration."""
    folder = RunFolder(path)
    config = read_config(folder)
    load_plugins(folder)
    return verify_run(folder, BackboneSpec(**config["backbone"]), seed=int(config["seed"]))


def verify_in_fresh_process(path: Path) -> None:
    """Run ``python -m server verify`` and record what it found in the ledger."""
    command = [sys.executable, "-m", "server", "verify", str(path.resolve())]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        raise LedgerError(f"Verification of {path} failed: {done.stderr.strip()[-500:]}")
    found = json.loads(done.stdout.strip().splitlines()[-1])
    Ledger(RunFolder(path).ledger).append("verified", found)


def write_outputs(path: Path, *, overlays: Sequence[Overlay] = (), kind: str = "federated") -> Path:
    """Write ``results.json`` and ``report.html`` from the ledger and what it is compared with; the report's path."""
    folder = RunFolder(path)
    load_plugins(folder)
    events = Ledger(folder.ledger).events()
    comparison: dict[str, Any] = json.loads(folder.comparison.read_text()) if folder.comparison.exists() else {}
    if comparison.get("made_of", (models := made_of(events))) != models:
        comparison = {}  # made of models that are no longer the run's, as after a withdrawal
    metrics: dict[str, dict[str, str]] = comparison.get("metrics", {})
    found = results(events, kind=kind)
    patients = as_it_stands(comparison.get("patients", []), found["scores"])
    found["scores"] = [*with_intervals(found["scores"], patients), *without_counterpart(patients, found["scores"])]
    if comparison:
        found["scores"] += comparison["scores"]
        found["metrics"] |= metrics
        found["comparisons"] = comparison["comparisons"]
    compared = [comparison_of(row) for row in comparison.get("comparisons", [])]
    found["bad_news"] = bad_news_of(events, comparisons=compared, patients=patients)
    write_results(folder.results, found)
    write_report(
        folder.report,
        {kind: events, **{arm: {"scores": comparison["scores"], "metrics": metrics, "summary": {}} for arm in metrics}},
        overlays=list(overlays),
        comparisons=compared,
        patients=patients,
        notes=[*_told(events), *_notes(folder, {task for arm in metrics.values() for task in arm})],
    )
    return folder.report


def made_of(events: Sequence[Event]) -> list[str]:
    """The run's models so far: each step's adapters, and who has left; what was made of others is out of date."""
    told = {"step_finished": "key", "step_refitted": "key", "center_withdrawn": "center"}
    return [event[told[event["kind"]]] for event in events if event["kind"] in told]


def _told(events: Sequence[Event]) -> list[str]:
    """Where the page of each step of statistics lies, and what it says in a word."""
    return [
        f"Before any training {len(event['told'])} centers told statistics of their patients; {event['differences']} "
        f"of {event['compared']} comparisons differ by more than chance: statistics/{event['step']}/statistics.html in "
        "the run's folder."
        for event in events
        if event["kind"] == "statistics_told"
    ]


def _notes(folder: RunFolder, compared: Collection[str]) -> list[str]:
    """What a reader must know about prognosis steps that are compared with nothing simpler."""
    bank = AdapterBank(folder.bank)
    keys = [event["key"] for event in Ledger(folder.ledger).events("step_finished")]
    steps = [step for step in (bank.entry(key).step for key in keys) if step.task.kind == "prognosis"]
    if any(step.federation.kind == "newton" for step in steps):
        return []
    alone = [step.name for step in steps if step.rounds > 0 and step.name not in compared]
    return [
        f"Nothing simpler is compared with {name}: a step with federation=newton (configs/step/relapse_exact.yaml) "
        "would be the exact linear fit to the same patients."
        for name in alone
    ]
