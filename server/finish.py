"""After the last step: a fresh process proves that nothing drifted, then results and report are written."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from common.config.schema import BackboneSpec
from common.errors import LedgerError
from common.ledger import Ledger
from server.folder import RunFolder
from server.probe import Verification, verify_run
from server.report.report import Comparison, Overlay, write_report
from server.report.results import results, write_results

ROOT = Path(__file__).resolve().parents[1]


def verify_folder(path: Path) -> Verification:
    """Verify a run folder in this process, with the frozen model and seed of its resolved configuration."""
    folder = RunFolder(path)
    if not folder.config.exists():
        raise LedgerError(f"{path} is not a run folder: it has no config.yaml.")
    config: Any = OmegaConf.load(folder.config)
    spec = BackboneSpec(**OmegaConf.to_container(config.backbone))  # type: ignore[arg-type]
    return verify_run(folder, spec, seed=int(config.seed))


def verify_in_fresh_process(path: Path) -> None:
    """Run ``python -m server verify`` and record what it found in the ledger."""
    command = [sys.executable, "-m", "server", "verify", str(path.resolve())]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        raise LedgerError(f"Verification of {path} failed: {done.stderr.strip()[-500:]}")
    found = json.loads(done.stdout.strip().splitlines()[-1])
    Ledger(RunFolder(path).ledger).append("verified", found)


def write_outputs(
    path: Path, *, overlays: Sequence[Overlay] = (), comparisons: Sequence[Comparison] = (), kind: str = "federated"
) -> Path:
    """Write ``results.json`` and ``report.html`` from the ledger; the report's path."""
    folder = RunFolder(path)
    events = Ledger(folder.ledger).events()
    write_results(folder.results, results(events, kind=kind))
    write_report(folder.report, events, overlays=list(overlays), comparisons=list(comparisons))
    return folder.report
