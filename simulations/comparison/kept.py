"""A plain run's test patients, each scored once under the step's adapter; their records stay in the run's folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from common.config.run import Run
from common.errors import DataError
from common.files import write_json
from common.store.bank import AdapterBank
from common.store.ledger import Ledger
from server.centers.roster import withdrawn
from server.coordinator import run_id_of
from server.report.reading.superseded import replaced
from server.run.folder import RunFolder
from simulations.comparison.patients import Observed, observe, open_centers, record_of


def observed_of(run: Run, folder: RunFolder, event: Mapping[str, Any]) -> list[Observed]:
    """Every test patient of a finished step at the centers that are still there, ordered by center and patient; none of
    a center whose data cannot be read, which has no score in the run either.

    Args:
        event: the step's ``step_finished``.
    """
    ledger, bank = Ledger(folder.ledger), AdapterBank(folder.bank)
    key, codes = key_of(ledger, bank, event), staying(ledger, event["evaluated_at"])
    path = folder.records(key)
    known = json.loads(path.read_text()) if path.exists() else {}
    if known.get("centers") == codes:
        return [
            Observed(row["center"], row["patient"], record_of(row), tuple(row.get("levels", ())))
            for row in known["patients"]
        ]
    files = folder.center_files()
    base = bank.entry(key).base
    kept = {"since": event["kept_round"], "run_id": run_id_of(ledger)}
    step, state = bank.entry(key).step, bank.get(key)
    found: list[Observed] = []
    for code in sorted(codes):
        with suppress(DataError):
            found += observe(run, step, state, open_centers(files, [code]), base=base, **kept)
    write_json(path, {"step": event["step"], "centers": codes, "patients": [one.row() for one in found]})
    return found


def key_of(ledger: Ledger, bank: AdapterBank, event: Mapping[str, Any]) -> str:
    """A finished step's adapter, or the one that a withdrawal put in its place."""
    return bank.head(event["lineage"]) if event["step"] in replaced(ledger.events()) else event["key"]


def staying(ledger: Ledger, centers: Sequence[str]) -> list[str]:
    """Those of the centers that have not left the run."""
    left = withdrawn(ledger)
    return [center for center in centers if center not in left]
