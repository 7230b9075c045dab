"""Tuning: every arm tries the same learning rates for the same few rounds; its own validation cases choose.

A trial is worth its best validation value, the start's included, for every arm. No test case is looked at: trials
evaluate nowhere. A fold's choice, made with the first seed, serves all seeds. What is still not equal between the arms
is said by name (`inequalities`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

from common.config.limits.budget import budget_of
from common.config.load import compose_run
from common.config.run import Run
from common.config.step import Step
from common.files import write_json
from common.store.ledger import Ledger
from server.learning.selection import best_round, score_of_round
from server.run.folder import RunFolder
from simulations.virtual.federate import federate

Values = dict[str, dict[str, float | None]]  # step -> factor -> validation value, larger is better


def trial_overrides(run: Run, factor: float) -> tuple[str, ...]:
    """The command line of one trial: every step short, its learning rate scaled, evaluated nowhere."""
    found = ["with_controls=false"]
    for name, step in run.steps.items():
        if name not in run.controls:
            found += [f"steps.{name}.evaluate_at=[]", *_shortened(f"steps.{name}", run, step)]
            found.append(_rate(f"steps.{name}", step, factor))
    return tuple(found)


def _shortened(where: str, run: Run, step: Step) -> list[str]:
    rounds = f"{where}.rounds={trial_rounds(run, step)}"
    if not step.budget:
        return [rounds]
    budget = budget_of(step.budget)
    return [rounds, f"{where}.budget='{math.ceil(budget.count * run.compare.tuning_share)} {budget.unit}'"]


def trial_rounds(run: Run, step: Step) -> int:
    """Rounds of a step in a trial: the configured share of its own, at least one where it is trained."""
    return math.ceil(step.rounds * run.compare.tuning_share)


def tuned_overrides(run: Run, choice: Mapping[str, float]) -> tuple[str, ...]:
    """The command line that sets the chosen rates; a control is trained at the rate of the step that it controls."""
    of_control = {control: step for step, control in run.compare.pairs}
    found = []
    for name, step in run.steps.items():
        factor = choice.get(of_control.get(name, name) if name in run.controls else name, 1.0)
        if step.rounds > 0 and factor != 1.0:
            found.append(_rate(f"{'controls' if name in run.controls else 'steps'}.{name}", step, factor))
    return tuple(found)


def tune_federated(run: Run, overrides: tuple[str, ...], path: Path) -> None:
    """Try every rate in a federation of its own and write the choice; a trial that was finished is not repeated."""
    values: Values = {}
    for factor in run.compare.learning_rates:
        folder = RunFolder(path.with_suffix("") / f"x{factor:g}")
        trial = (*overrides, *trial_overrides(run, factor))
        federate(compose_run(trial), folder, trial)
        for name, step in run.steps.items():
            if step.rounds > 0 and Ledger(folder.ledger).events("round_finished", step=name):
                values.setdefault(name, {})[f"{factor:g}"] = worth_of_trial(Ledger(folder.ledger), name)
    write_choice(path, values)


def worth_of_trial(ledger: Ledger, step: str) -> float | None:
    """The best validation value of a federated trial, its start's included, as a baseline's is
    (`simulations.comparison.baselines.Trained.value`)."""
    start = ledger.events("start_validated", step=step)[:1]
    worth = score_of_round(best_round([*start, *ledger.events("round_finished", step=step)]))
    return worth.value if worth else None


def inequalities(run: Run) -> list[str]:
    """Where the arms of a comparison are not tuned alike, one sentence each; empty where they are."""
    trained = {name: step for name, step in run.steps.items() if step.rounds > 0 and step.federation.kind != "newton"}
    controls = [name for name in trained if name in run.controls]
    found = []
    if controls and run.compare.learning_rates != [1.0]:
        found.append(f"{', '.join(controls)}: not tuned; a control trains at the rate of the step that it controls.")
    return found


def write_choice(path: Path, values: Values) -> None:
    """Write what was tried and the factor that each step keeps: the best value, of equals the nearest to 1."""
    write_json(path, {"tried": values, "chosen": {step: _best(found) for step, found in values.items()}})


def read_choice(path: Path) -> dict[str, float]:
    """The chosen factors by step; none where nothing was tuned."""
    return json.loads(path.read_text())["chosen"] if path.exists() else {}


def _rate(where: str, step: Step, factor: float) -> str:
    return f"{where}.training.learning_rate={step.training.learning_rate * factor!r}"


def _best(found: Mapping[str, float | None]) -> float:
    scored = [(v, -abs(math.log(float(factor))), float(factor)) for factor, v in found.items() if v is not None]
    return max(scored)[2] if scored else 1.0
