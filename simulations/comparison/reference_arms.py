"""Beside a plain run: of prognosis steps the exact linear fit on the same test patients, of segmentations intervals
over the patients themselves."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch

from common.config.run import Run
from common.config.step import Step
from common.files import write_json
from common.store.bank import AdapterBank
from common.store.ledger import Ledger
from common.tasks import build_task
from server.run.finish import made_of
from server.run.folder import RunFolder
from simulations.comparison.kept import key_of, observed_of, staying
from simulations.comparison.names import EXACT, FEDERATED, PATIENTS
from simulations.comparison.paired import Patient, compare_patients, metrics_of, score_rows
from simulations.comparison.patients import Observed, open_centers
from simulations.comparison.recorded.exact_arm import has_exact_form, observe_exact


def write_comparison(run: Run, folder: RunFolder) -> None:
    """Fit every finished prognosis step exactly and leave scores and paired differences for the report; score the test
    patients of every segmentation one by one.

    A step that is itself an exact fit, or scored nobody, is compared with nothing.
    """
    ledger, bank = Ledger(folder.ledger), AdapterBank(folder.bank)
    models = made_of(ledger.events())
    if folder.comparison.exists():
        if json.loads(folder.comparison.read_text()).get("made_of", models) == models:
            return
        folder.comparison.unlink()
    base = ledger.events("run_started")[0]["base"]
    files = folder.center_files()
    torch.set_num_threads(run.runtime.threads)
    rows: list[dict[str, Any]] = []
    patients: list[dict[str, Any]] = []
    comparisons: list[dict[str, Any]] = []
    metrics: dict[str, str] = {}
    for event in ledger.events("step_finished"):
        step = bank.entry(key_of(ledger, bank, event)).step  # with the grid that the run chose
        if step.task.kind == "segmentation":
            patients += _patient_rows(run, step, _patients(observed_of(run, folder, event)))
        [started] = ledger.events("step_started", step=step.name)[:1]
        if not has_exact_form(step) or step.federation.kind == "newton" or not started["centers"]:
            continue
        trained, evaluated = (
            open_centers(files, staying(ledger, codes)) for codes in (started["centers"], event["evaluated_at"])
        )
        exact = _patients(observe_exact(run, step, trained=trained, evaluated=evaluated, base=base))
        deep = _patients(observed_of(run, folder, event))
        metrics[step.name] = build_task(step.task).primary
        rows += score_rows(EXACT, step, exact, metrics[step.name], draws=run.compare.draws)
        sides = (FEDERATED, deep), (EXACT, exact)
        found = compare_patients(step, *sides, metrics[step.name], draws=run.compare.draws)
        comparisons += [found.row()] if found else []
    if rows or patients:
        arms = {EXACT: metrics} if rows else {}
        beside = {"scores": rows, "metrics": arms, "comparisons": comparisons, "patients": patients, "made_of": models}
        write_json(folder.comparison, beside)


def _patient_rows(run: Run, step: Step, found: list[Patient]) -> list[dict[str, Any]]:
    draws = run.compare.draws
    return [
        row
        for metric in (metrics_of(step, found) if found else [])
        for row in score_rows(PATIENTS, step, found, metric, draws=draws, center_draws=max(200, draws // 4))
    ]


def _patients(found: list[Observed]) -> list[Patient]:
    return [
        Patient(o.center, o.patient, 0, ({name: np.asarray(value) for name, value in o.observation.items()},))
        for o in found
    ]
