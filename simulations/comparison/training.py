"""What each arm's training cost: optimizer steps in a row and cases seen, so that arms can be weighed by them."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from common.config.limits.budget import spent
from common.store.ledger import Ledger
from server.centers.roster import rounds_of
from simulations.comparison.beside import federations
from simulations.comparison.comparing import Cell, Comparing, Job
from simulations.comparison.names import ALONE, CENTRALIZED, LEFT_OUT, UNET_CENTRALIZED

Row = dict[str, Any]


def training_rows(comparing: Comparing) -> list[Row]:
    """One row for each cell, trained arm and step; where each center trains alone, one for each center."""
    cells = comparing.cells
    return [row | {"fold": cell.fold, "seed": cell.seed} for cell in cells for row in of_cell(comparing, cell)]


def of_cell(comparing: Comparing, cell: Cell) -> list[Row]:
    """Of one fold and seed."""
    rows = [row for arm in federations(comparing.run.compare) for row in _federated(comparing, arm, cell)]
    for arm in (CENTRALIZED, UNET_CENTRALIZED):
        rows += _alone(comparing, Job(arm, cell))
    for arm in (*ALONE, LEFT_OUT):
        for folder in sorted((comparing.folder / "records" / cell.name).glob(f"{arm}-*")):
            rows += _alone(comparing, Job(arm, cell, folder.name.removeprefix(f"{arm}-")))
    return rows


def _federated(comparing: Comparing, arm: str, cell: Cell) -> list[Row]:
    ledger = Ledger(comparing.arm_folder(arm, cell).ledger)
    steps = [event["step"] for event in ledger.events("step_finished")]
    cost = {step: (len(rounds), spent(rounds)) for step in steps for rounds in [rounds_of(ledger, step)]}
    return [{"arm": arm, "step": s, "rounds": n} | asdict(of_all) for s, (n, of_all) in cost.items() if of_all.steps]


def _alone(comparing: Comparing, job: Job) -> list[Row]:
    """Of an arm that trained in one place."""
    rows = []
    for path in sorted(comparing.records(job).glob("*.train.json")):
        found = json.loads(path.read_text())
        row = {"arm": job.arm, "step": path.name.removesuffix(".train.json"), "rounds": found["passes"]}
        rows.append(row | {name: found[name] for name in ("steps", "cases")} | _named(job.center))
    return rows


def _named(center: str | None) -> Row:
    return {} if center is None else {"center": center}


def costs(rows: list[Row]) -> list[str]:
    """``tumour_ct: federated 48 (792 cases), centralized 132 (792 cases)``, over the arms that are one model each."""
    steps = dict.fromkeys(row["step"] for row in rows)
    told = []
    for step in steps:
        own = [row for row in rows if row["step"] == step and "center" not in row]
        told.append(f"{step}: " + ", ".join(f"{r['arm']} {r['steps']:,} ({r['cases']:,} cases)" for r in own))
    return told
