"""Plan: what a private step draws at a center, worked out of the step's public numbers alone.

Two neighbouring cohorts get the same plan to the bit, because nothing of it depends on a patient: the rate, the number
that the sum of gradients is divided by, and the noise. An exact fit asks everybody in every question: its rate is 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from common.config.privacy import DpSgd, NoisedSums, cohort_of
from common.config.step import Step
from common.privacy.accounting import Release, noise_for

TRAIN, SUMS = "train", "sums"


@dataclass(frozen=True)
class Plan:
    """One center's share of a step.

    Args:
        cohort: the public bound of its training patients.
        batch: patients expected in a draw, of a cohort as large as its bound; the sum of gradients is divided by it.
        draws: in one round, each an optimizer step, an empty one too.
        clip: the longest gradient of one patient; of an exact fit, the longest row.
        delta: at which the step's epsilon is meant.
        noise: standard deviation of what is added to the sum, in units of the longest that one patient adds.
        kind: of the releases, `TRAIN` or `SUMS`.
    """

    cohort: int
    batch: int
    draws: int
    clip: float
    delta: float
    noise: float
    kind: str = TRAIN

    @property
    def rate(self) -> float:
        """With which each patient takes part in a draw."""
        return self.batch / self.cohort

    @property
    def release(self) -> Release:
        """What one round tells."""
        return Release(self.noise, self.rate, self.draws, self.kind)


def plan_of(step: Step, center: str, *, found_before: float | None = None) -> Plan:
    """The plan of a step with ``privacy``. Takes seconds the first time: the least noise is looked for.

    Args:
        found_before: a noise that was found for it, which one evaluation confirms or drops.

    Raises:
        ConfigError: no noise is enough.
    """
    spec: DpSgd | NoisedSums = step.privacy
    cohort, draws = cohort_of(spec, center), draws_of(step, center)
    batch, kind = (spec.batch, TRAIN) if isinstance(spec, DpSgd) else (cohort, SUMS)
    delta = 1 / (10 * cohort) if spec.delta is None else spec.delta
    whole = max(step.rounds, 1) * draws
    noise = noise_for(spec.epsilon, delta, rate=batch / cohort, draws=whole, found_before=found_before)
    return Plan(cohort, batch, draws, spec.clip, delta, noise, kind)


def draws_of(step: Step, center: str) -> int:
    """How many draws of patients a round has; a question of an exact fit is one."""
    spec: DpSgd | NoisedSums = step.privacy
    if not isinstance(spec, DpSgd):
        return 1
    return spec.draws or step.training.epochs * math.ceil(cohort_of(spec, center) / spec.batch)
