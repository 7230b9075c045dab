"""DP-SGD's options. Every one is public: nothing here may be computed from how many patients a center truly has."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class NoPrivacy:
    """No noise: ``privacy=none``, which is what a step has by itself."""

    kind: str = "none"


@dataclass
class DpSgd:
    """DP-SGD, the patient as its unit: each patient's gradient is clipped, and noise hides whose are in the sum."""

    epsilon: float = 8.0  # of the whole step at each center
    delta: float | None = None  # at which epsilon is meant; null: 1 / (10 cohort)
    clip: float = 1.0  # the longest that one patient's gradient may be, over everything that trains
    cohort: int = 0  # public bound of a center's training patients, as agreed: never their true number
    cohorts: dict[str, int] = field(default_factory=dict)  # center -> a public bound of its own
    batch: int = 8  # patients expected in a draw, each with the probability batch / cohort; the sum is divided by it
    draws: int = 0  # of patients in a round, an optimizer step each; 0: cohort / batch, rounded up, for each epoch
    noise_seed: int | None = None  # for tests: draws and noise come from it and protect nobody, as the account says
    kind: str = "dp_sgd"  # the one kind there is; to have none, privacy=none


def cohort_of(spec: DpSgd, center: str) -> int:
    """The public bound of a center's training patients."""
    return spec.cohorts.get(center, spec.cohort)
