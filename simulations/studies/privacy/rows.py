"""Rows of the study: adapters that train by batches, without privacy and at each epsilon."""

from __future__ import annotations

import math

from common.config.run import Run
from simulations.studies.trials import Trial

FREE = math.inf
LORA = ("fedit", "ffa", "fedsvd", "fedsb")
NAMES = {"fedit": "LoRA", "ffa": "FFA-LoRA", "fedsvd": "FedSVD", "fedsb": "Fed-SB"}
WITHIN = "within"  # the LoRA part that rows of a step vary


def level_name(epsilon: float) -> str:
    """As a reader knows it."""
    return "none" if math.isinf(epsilon) else f"epsilon {epsilon:g}"


def rows_of(run: Run, step: str) -> dict[tuple[str, float], list[Trial]]:
    """(adapter, epsilon) -> one trial per seed."""
    return {
        (adapter, epsilon): [
            Trial(f"{adapter} {level_name(epsilon)}", step, seed, (*given, *_privacy(run, step, epsilon)))
            for seed in run.study.seeds
        ]
        for adapter, given in _adapters(run, step).items()
        for epsilon in (FREE, *run.study.epsilons)
    }


def _adapters(run: Run, step: str) -> dict[str, tuple[str, ...]]:
    """A LoRA part's rules where the step has one, and the step's adapter without it: its head."""
    parts = run.steps[step].adapter.parts
    if WITHIN not in parts:
        return {"as declared": ()}
    rules = {NAMES[rule]: (f"steps.{step}.adapter.parts.{WITHIN}.rule={rule}",) for rule in LORA}
    return {**rules, "head alone": (f"~steps.{step}.adapter.parts.{WITHIN}",)}


def _privacy(run: Run, step: str, epsilon: float) -> tuple[str, ...]:
    """A step's overrides for an epsilon. Without privacy it keeps its last round, too: the rounds are the same."""
    if math.isinf(epsilon):
        return (f"steps.{step}.selection.keep=last",)
    study = run.study
    own = {"epsilon": epsilon, "cohort": study.cohort, "batch": study.batch, "draws": study.draws, "clip": study.clip}
    chosen = (f"steps.{step}.privacy.{name}={value:g}" for name, value in own.items())
    return (f"steps.{step}.privacy=dp_sgd", *chosen)
