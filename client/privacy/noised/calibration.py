"""Calibration: a step's noise is looked for once at each center, in seconds, and then stands in its vault.

A deployed center is a new process for every message, and each would search again. What is read back is believed only
where one evaluation of the accountant says that it keeps the step's epsilon, so a changed file costs a search and never
privacy. Nothing of it comes from a patient, nor from the coordinator: it is a function of the step's public numbers.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from client.vault.lock import alone
from common.config.step import Step
from common.privacy.plan import Plan, plan_of
from common.store.sealed import DamagedFile, read_sealed, write_sealed

FILE = "noise.json"
MOST = 1000  # plans that are kept; the oldest go first


def plan_at(vault: Path, step: Step, center: str, *, keep: bool = True) -> Plan:
    """`plan_of`, from the vault where it was found before.

    Args:
        keep: False changes nothing in the vault.

    Raises:
        ConfigError: no noise is enough.
    """
    question = _question(step, center)
    found = _read(vault / FILE).get(question)
    plan = plan_of(step, center, found_before=found)
    if keep and plan.noise != found:
        with alone(vault / FILE):
            kept = {**_read(vault / FILE), question: plan.noise}
            write_sealed(vault / FILE, dict(list(kept.items())[-MOST:]))
    return plan


def _question(step: Step, center: str) -> str:
    """The public numbers that decide the noise, and more of them than it takes."""
    numbers = {name: value for name, value in asdict(step.privacy).items() if name not in ("cohorts", "noise_seed")}
    numbers |= {"cohort": step.privacy.cohorts.get(center, step.privacy.cohort)}
    return json.dumps({**numbers, "rounds": step.rounds, "epochs": step.training.epochs}, sort_keys=True)


def _read(path: Path) -> dict[str, float]:
    """What was found before; nothing where the file is absent or damaged."""
    if not path.exists():
        return {}
    try:
        found = read_sealed(path, remedy="it is made again.")
        return {str(name): float(value) for name, value in found.items()}
    except (DamagedFile, AttributeError, TypeError, ValueError):
        return {}
