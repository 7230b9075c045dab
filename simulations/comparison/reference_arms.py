"""What a plain run is compared with: for every prognosis step the exact linear fit, on the same test patients."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from common.config.run import Run
from common.files import write_json
from common.store.bank import AdapterBank
from common.store.ledger import Ledger
from common.tasks import build_task
from server.coordinator import run_id_of
from server.run.folder import RunFolder
from simulations.comparison.names import EXACT, FEDERATED
from simulations.comparison.paired import Patient, compare_patients, score_rows
from simulations.comparison.patients import Observed, observe, open_centers
from simulations.comparison.recorded.exact_arm import has_exact_form, observe_exact


def write_comparison(run: Run, folder: RunFolder) -> None:
    """Fit every finished prognosis step exactly and leave scores and paired differences for the report.

    A step that is itself an exact fit, or scored nobody, is compared with nothing.
    """
    if folder.comparison.exists():
        return
    ledger, bank = Ledger(folder.ledger), AdapterBank(folder.bank)
    base = ledger.events("run_started")[0]["base"]
    files = {path.stem: path for path in folder.centers.glob("*.yaml")}
    torch.set_num_threads(run.runtime.threads)
    rows: list[dict[str, Any]] = []
    comparisons: list[dict[str, Any]] = []
    metrics: dict[str, str] = {}
    for event in ledger.events("step_finished"):
        step = bank.entry(event["key"]).step  # with the grid that the run chose
        [started] = ledger.events("step_started", step=step.name)[:1]
        if not has_exact_form(step) or step.federation.kind == "newton" or not started["centers"]:
            continue
        trained, evaluated = (open_centers(files, codes) for codes in (started["centers"], event["evaluated_at"]))
        exact = _patients(observe_exact(run, step, trained=trained, evaluated=evaluated, base=base))
        kept = {"since": event["kept_round"], "run_id": run_id_of(ledger)}
        deep = _patients(observe(run, step, bank.get(event["key"]), evaluated, base=base, **kept))
        metrics[step.name] = build_task(step.task).primary
        rows += score_rows(EXACT, step, exact, metrics[step.name], draws=run.compare.draws)
        sides = (FEDERATED, deep), (EXACT, exact)
        found = compare_patients(step, *sides, metrics[step.name], draws=run.compare.draws)
        comparisons += [found.row()] if found else []
    if rows:
        write_json(folder.comparison, {"scores": rows, "metrics": {EXACT: metrics}, "comparisons": comparisons})


def _patients(found: list[Observed]) -> list[Patient]:
    return [
        Patient(o.center, o.patient, 0, ({name: np.asarray(value) for name, value in o.observation.items()},))
        for o in found
    ]
