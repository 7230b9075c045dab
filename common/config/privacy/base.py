"""What every kind of privacy is asked for in: public numbers, none of them made from how many patients there are."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class NoPrivacy:
    """No noise: ``privacy=none``, which is what a step has by itself."""

    kind: str = "none"


@dataclass
class PatientPrivacy:
    """Options that every kind has."""

    epsilon: float = 8.0  # of the whole step at each center
    delta: float | None = None  # at which epsilon is meant; null: 1 / (10 cohort)
    cohort: int = 0  # public bound of a center's training patients, as agreed: never their true number
    cohorts: dict[str, int] = field(default_factory=dict)  # center -> a public bound of its own
    score_epsilon: float = 0.0  # of all its answers with scores together, at each center; 0: scores carry no noise
    score_answers: int = 0  # how many such answers there are at most; 0: those that the step itself asks for
    score_cohort: int = 0  # public bound of a center's validation or test patients; 0: that of its training patients
    noise_seed: int | None = None  # for tests: draws and noise come from it and protect nobody, as the account says


def scores_are_noised(spec: PatientPrivacy | None) -> bool:
    """Whether answers with scores carry noise."""
    return spec is not None and spec.score_epsilon > 0


def cohort_of(spec: PatientPrivacy, center: str) -> int:
    """The public bound of a center's training patients."""
    return spec.cohorts.get(center, spec.cohort)


def score_cohort_of(spec: PatientPrivacy, center: str) -> int:
    """The public bound of a center's patients that are scored: the step's, or that of its training patients."""
    return spec.score_cohort or cohort_of(spec, center)
