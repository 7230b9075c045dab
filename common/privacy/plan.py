"""Plan: what a step under DP-SGD draws at a center, worked out of the step's public numbers alone.

Two neighbouring cohorts get the same plan to the bit, because nothing of it depends on a patient: the rate, the number
that the sum of gradients is divided by, and the noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from common.config.privacy.dp_sgd import DpSgd, cohort_of
from common.config.step import Step
from common.privacy.accounting import Release, noise_for

TRAIN = "train"


@dataclass(frozen=True)
class Plan:
    """One center's share of a step.

    Args:
        cohort: the public bound of its training patients.
        batch: patients expected in a draw, of a cohort as large as its bound; the sum of gradients is divided by it.
        draws: in one round, each an optimizer step, an empty one too.
        clip: the longest gradient of one patient.
        delta: at which the step's epsilon is meant.
        noise: standard deviation of what is added to the sum, in units of ``clip``.
    """

    cohort: int
    batch: int
    draws: int
    clip: float
    delta: float
    noise: float

    @property
    def rate(self) -> float:
        """With which each patient takes part in a draw."""
        return self.batch / self.cohort

    @property
    def release(self) -> Release:
        """What one round tells."""
        return Release(self.noise, self.rate, self.draws, TRAIN)


def plan_of(step: Step, center: str) -> Plan:
    """The plan of a step with ``privacy``. Takes seconds the first time: the least noise is looked for.

    Raises:
        ConfigError: no noise is enough.
    """
    spec: DpSgd = step.privacy
    cohort = cohort_of(spec, center)
    draws = draws_of(step, center)
    delta = 1 / (10 * cohort) if spec.delta is None else spec.delta
    noise = noise_for(spec.epsilon, delta, rate=spec.batch / cohort, draws=max(step.rounds, 1) * draws)
    return Plan(cohort, spec.batch, draws, spec.clip, delta, noise)


def draws_of(step: Step, center: str) -> int:
    """How many draws of patients a round has."""
    spec: DpSgd = step.privacy
    return spec.draws or step.training.epochs * math.ceil(cohort_of(spec, center) / spec.batch)
