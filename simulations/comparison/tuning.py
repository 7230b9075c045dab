"""Tuning: every arm tries the same learning rates for the same few rounds; its own validation cases choose.

A trial is worth its best validation value, the start's included, for every arm. Where no rate is better than the middle
one by ``compare.tuning_margin``, the trials could not tell rates apart: the middle one is kept, and the page says so.
No test case is looked at: trials evaluate nowhere. A fold's choice, made with the first seed, serves all seeds. What is
still not equal between the arms is said by name (`inequalities`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
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
    write_choice(path, values, margin=run.compare.tuning_margin)


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


def write_choice(path: Path, values: Values, *, margin: float) -> None:
    """Write what was tried, the factor that each step keeps (the best one; the middle one where none is better than it
    by the margin), and the steps whose trials could not tell rates apart."""
    chosen = {step: _best(found, margin) for step, found in values.items()}
    unclear = [step for step, found in values.items() if len(found) > 1 and not _is_told_apart(found, margin)]
    write_json(path, {"tried": values, "chosen": chosen, "undecided": unclear})


def undecided(path: Path) -> list[str]:
    """Steps whose trials could not tell rates apart."""
    return json.loads(path.read_text()).get("undecided", []) if path.exists() else []


def read_choice(path: Path) -> dict[str, float]:
    """The chosen factors by step; none where nothing was tuned."""
    return json.loads(path.read_text())["chosen"] if path.exists() else {}


def _rate(where: str, step: Step, factor: float) -> str:
    return f"{where}.training.learning_rate={step.training.learning_rate * factor!r}"


def _best(found: Mapping[str, float | None], margin: float) -> float:
    scored = {factor: value for factor, value in found.items() if value is not None}
    if not scored:
        return middle(found)
    best = max(scored, key=lambda factor: scored[factor])
    return float(best) if _is_told_apart(found, margin) else middle(found)


def _is_told_apart(found: Mapping[str, float | None], margin: float) -> bool:
    """Whether some rate is better than the middle one by the margin, or the middle one than all others."""
    scored = {float(factor): value for factor, value in found.items() if value is not None}
    center = scored.pop(middle(found), None)
    if center is None or not scored:
        return bool(scored)
    return max(scored.values()) - center >= margin or center - max(scored.values()) >= margin


def middle(factors: Iterable[str]) -> float:
    """The middle of the tried factors, of an even number the lower one of the two."""
    tried = sorted(map(float, factors))
    return tried[(len(tried) - 1) // 2]
