"""Plan: what a private step draws at a center, worked out of the step's public numbers alone.

Two neighbouring cohorts get the same plan to the bit, because nothing of it depends on a patient: the rate, the number
that the sum of gradients is divided by, and the noise. An exact fit asks everybody in every question: its rate is 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from common.config.privacy import DpSgd, NoisedSums, cohort_of, score_cohort_of
from common.config.step import Step, is_validated
from common.data.modality_sets import scored_modes
from common.privacy.accounting import Release, noise_for

TRAIN, SUMS, SCORES = "train", "sums", "scores"


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
    delta = delta_of(spec, center)
    whole = max(step.rounds, 1) * draws
    noise = noise_for(spec.epsilon, delta, rate=batch / cohort, draws=whole, found_before=found_before)
    return Plan(cohort, batch, draws, spec.clip, delta, noise, kind)


@dataclass(frozen=True)
class ScorePlan:
    """One center's noise on answers with scores.

    Args:
        cohort: the public bound of the patients that are scored.
        answers: for how many the noise is, over validation and test together.
        noise: standard deviation, in units of the longest that one patient adds to an answer.
    """

    cohort: int
    answers: int
    noise: float

    @property
    def release(self) -> Release:
        """What one answer tells."""
        return Release(self.noise, kind=SCORES)


def score_plan_of(step: Step, center: str, *, found_before: float | None = None) -> ScorePlan:
    """The noise of a step whose scores carry some, at the step's delta. Raises ConfigError: no noise is enough."""
    spec: DpSgd | NoisedSums = step.privacy
    answers, cohort = spec.score_answers or answers_of(step), score_cohort_of(spec, center)
    noise = noise_for(spec.score_epsilon, delta_of(spec, center), rate=1.0, draws=answers, found_before=found_before)
    return ScorePlan(cohort, answers, noise)


def answers_of(step: Step) -> int:
    """How many answers with scores a step itself asks a center for: its validations, and its test patients before and
    after it, in each mode. Each later step that changes what this one learned asks once more in each mode."""
    has_rounds = step.rounds > 0 and step.federation.kind != "newton"
    validations = sum(is_validated(step, number) for number in range(step.rounds + 1)) if has_rounds else 0
    return validations + 2 * len(scored_modes(step))


def delta_of(spec: DpSgd | NoisedSums, center: str) -> float:
    """At which a step's epsilons are meant at a center."""
    return 1 / (10 * cohort_of(spec, center)) if spec.delta is None else spec.delta


def draws_of(step: Step, center: str) -> int:
    """How many draws of patients a round has; a question of an exact fit is one."""
    spec: DpSgd | NoisedSums = step.privacy
    if not isinstance(spec, DpSgd):
        return 1
    return spec.draws or step.training.epochs * math.ceil(cohort_of(spec, center) / spec.batch)
