"""NoisedScores: a task whose scores carry noise, in the place of the task wherever scores are declared and read.

What leaves are two sums and their noise's variance, a public number, which adds up over centers as they do. Every
metric says its own standard deviation by noise alone; one whose denominator might be noise has no value.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from common.config.privacy import scores_are_noised
from common.config.step import Step
from common.metrics import mean_defined
from common.privacy.scores.ratios import Ratio, ratio_of
from common.protocol.messages import Sums
from common.tasks import Task, build_task
from common.tasks.base import Observation, Scored, Shapes

if TYPE_CHECKING:
    from torch import Tensor, nn

    from common.data.batch import Batch

ABOVE, BELOW, VARIANCE = "noised_above", "noised_below", "noised_variance"
SURE = 2.0  # standard deviations that a denominator is above zero, or there is no score


def scored_task(step: Step, known: Mapping[str, np.ndarray] | None = None) -> Task:
    """The task of a step as its scores travel and are read."""
    task = build_task(step.task, known)
    ratio = ratio_of(step.task) if scores_are_noised(step.privacy) else None
    return task if ratio is None else NoisedScores(task, ratio)


class NoisedScores(Scored):
    """A task with one score, its sums noised at the centers (`client.privacy.noised.scores`).

    Args:
        task: what trains.
    """

    is_noised = True
    signed = frozenset({ABOVE, BELOW, "fit.loss"})

    def __init__(self, task: Task, ratio: Ratio):
        self.inner, self.ratio = task, ratio
        self.kind, self.outputs, self.zero_shot = task.kind, task.outputs, task.zero_shot
        self.primary = ratio.metric
        self.label_shapes = task.label_shapes

    @property
    def sum_shapes(self) -> Shapes:
        entries = (len(self.ratio.entries),)
        return {ABOVE: entries, BELOW: entries, VARIANCE: ()}

    def head(self, dim: int) -> nn.Module | None:
        return self.inner.head(dim)

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        return self.inner.loss(output, batch)

    def observe(self, output: Tensor, batch: Batch) -> list[Observation]:
        return self.inner.observe(output, batch)

    def sums(self, observations: Sequence[Observation]) -> Sums:
        """The same sums without noise, of a simulation's own."""
        nothing = np.zeros(len(self.ratio.entries))
        above, below = self.ratio.parts(observations) if observations else (nothing, nothing)
        return {ABOVE: above, BELOW: below, VARIANCE: np.zeros(())}

    def label_sums(self, target: Mapping[str, Tensor]) -> Sums:
        return self.inner.label_sums(target)

    def together_labels(self, target: Mapping[str, Tensor], *, minimum: int) -> Mapping[str, Tensor] | None:
        return self.inner.together_labels(target, minimum=minimum)

    def metrics(self, sums: Sums) -> dict[str, float | None]:
        """The score, and each entry's where there are several; None where noise hides the denominator."""
        return {name: None if found is None else found[0] for name, found in self._found(sums).items()}

    def noise(self, sums: Sums) -> dict[str, float]:
        """The standard deviation that noise alone gives each metric that has a value (by the delta method)."""
        return {name: found[1] for name, found in self._found(sums).items() if found is not None}

    def _found(self, sums: Sums) -> dict[str, tuple[float, float] | None]:
        variance = max(float(sums[VARIANCE]), 0.0)
        pairs = zip(np.ravel(sums[ABOVE]), np.ravel(sums[BELOW]), strict=True)
        each = [_ratio(float(above), float(below), variance) for above, below in pairs]
        known = [found for found in each if found is not None]
        mean = mean_defined([value for value, _ in known])
        spread = math.sqrt(sum(own**2 for _, own in known)) / max(len(known), 1)
        found: dict[str, tuple[float, float] | None] = {self.primary: None if mean is None else (mean, spread)}
        if len(each) > 1:
            found |= {self.ratio.name(entry): one for entry, one in zip(self.ratio.entries, each, strict=True)}
        return found


def _ratio(above: float, below: float, variance: float) -> tuple[float, float] | None:
    """A ratio, within 0 and 1, and the standard deviation of its noise."""
    if below <= SURE * math.sqrt(variance):
        return None
    value = min(max(above / below, 0.0), 1.0)
    return value, math.sqrt(variance * (1 + value**2)) / below
