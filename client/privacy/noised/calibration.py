"""Calibration: a step's noise is looked for once at each center, in seconds, and then stands in its vault.

A deployed center is a new process for every message, and each would search again. What is read back is believed only
where one evaluation of the accountant says that it keeps the step's epsilon, so a changed file costs a search and never
privacy. Nothing of it comes from a patient, nor from the coordinator: it is a function of the step's public numbers.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

from client.vault.lock import alone
from common.config.privacy import cohort_of
from common.config.step import Step
from common.privacy.plan import SCORES, Plan, ScorePlan, answers_of, plan_of, score_plan_of
from common.store.sealed import DamagedFile, read_sealed, write_sealed

P = TypeVar("P", Plan, ScorePlan)
FILE = "noise.json"
OTHERS = ("cohorts", "noise_seed", "score_epsilon", "score_answers", "score_cohort")  # than decide that noise
MOST = 1000  # plans that are kept; the oldest go first


def plan_at(vault: Path, step: Step, center: str, *, keep: bool = True) -> Plan:
    """`plan_of`, from the vault where it was found before.

    Args:
        keep: False changes nothing in the vault.

    Raises:
        ConfigError: no noise is enough.
    """
    return _kept(vault, _question(step, center), lambda found: plan_of(step, center, found_before=found), keep=keep)


def score_plan_at(vault: Path, step: Step, center: str, *, keep: bool = True) -> ScorePlan:
    """The same of `score_plan_of`, the noise on answers with scores."""
    numbers = {name: getattr(step.privacy, name) for name in ("score_epsilon", "score_answers", "delta")}
    numbers |= {"cohort": cohort_of(step.privacy, center), "asked": answers_of(step)}
    question = json.dumps({**numbers, "of": SCORES}, sort_keys=True)
    return _kept(vault, question, lambda found: score_plan_of(step, center, found_before=found), keep=keep)


def _kept(vault: Path, question: str, make: Callable[[float | None], P], *, keep: bool) -> P:
    """A plan, with the noise that was found for its question before, or that is found now and kept."""
    found = _read(vault / FILE).get(question)
    plan = make(found)
    if keep and plan.noise != found:
        with alone(vault / FILE):
            kept = {**_read(vault / FILE), question: plan.noise}
            write_sealed(vault / FILE, dict(list(kept.items())[-MOST:]))
    return plan


def _question(step: Step, center: str) -> str:
    """The public numbers that decide the noise of what is learned, and more of them than it takes."""
    spec = step.privacy
    numbers = {name: value for name, value in asdict(spec).items() if name not in OTHERS}
    numbers |= {"cohort": cohort_of(spec, center)}
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
