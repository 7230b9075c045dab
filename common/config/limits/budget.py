"""Budgets: how long a step trains, counted in optimizer steps or in cases instead of rounds.

A round is a message, and says nothing of how far a model was trained: at a center of two cases it is one step of the
optimizer, at a center of thirty it is eight. Arms are compared fairly where they take as many steps *in a row*: over a
federation's rounds, those of the contributing center with the most of them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from common.config.step import Step
from common.config.training import Training
from common.errors import ConfigError

STEPS, CASES = "steps", "cases"
FORM = re.compile(r"\s*([1-9]\d{0,8})\s+(steps|cases)\s*")


@dataclass(frozen=True)
class Budget:
    """So many optimizer steps in a row, or so many cases seen over all centers, repetitions counted."""

    count: int
    unit: str


@dataclass(frozen=True)
class Spent:
    """What finished rounds cost.

    Args:
        steps: of the optimizer in a row: over the rounds, the most that any contributing center took.
        cases: seen over all contributing centers, repetitions counted.
    """

    steps: int = 0
    cases: int = 0

    def __str__(self) -> str:
        return f"{self.steps:,} optimizer steps in a row, {self.cases:,} cases seen"


def budget_of(text: str) -> Budget:
    """``500 steps`` or ``2000 cases``.

    Raises:
        ConfigError: it is neither.
    """
    found = FORM.fullmatch(text)
    if not found:
        raise ConfigError(f"budget is '{text}'; write a number and what it counts: '500 steps' or '2000 cases'.")
    return Budget(int(found[1]), found[2])


def round_of(training: Training, cases: Iterable[int]) -> Spent:
    """What one round of centers with so many training cases costs."""
    counts = [count for count in cases if count > 0]
    return Spent(
        steps=training.epochs * max((math.ceil(count / training.batch) for count in counts), default=0),
        cases=training.epochs * sum(counts),
    )


def with_rounds(step: Step, cases: Iterable[int]) -> Step:
    """The step with the rounds in which these centers' training cases spend its budget; as it is without a budget."""
    if not step.budget or step.rounds == 0:
        return step
    budget = budget_of(step.budget)
    of_one = round_of(step.training, cases)
    spent = of_one.steps if budget.unit == STEPS else of_one.cases
    return replace(step, rounds=max(1, math.ceil(budget.count / max(spent, 1))))


def spent(rounds: Iterable[Mapping[str, Any]]) -> Spent:
    """What a step's ``round_finished`` events cost; a void round taught the model nothing."""
    useful = [event for event in rounds if not event.get("void")]
    counted = [event.get("train", {}).values() for event in useful]
    summed = [event.get("secure_sum", {}) for event in useful]  # which says the centers' mean, not their most
    return Spent(
        steps=sum(max((row.get("steps", 0) for row in rows), default=0) for rows in counted)
        + sum(math.ceil(one["batches"] / max(one["centers"], 1)) for one in summed if one),
        cases=sum(row.get("seen", row.get("cases", 0)) for rows in counted for row in rows)
        + sum(one["cases"] for one in summed if one),
    )
