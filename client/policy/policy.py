"""Policy: a hospital's own rules, from ``center.yaml``, and what follows from its two minimums."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from common.errors import ConfigError, PolicyRefusal
from common.protocol.messages import TOO_FEW_CASES

ALL = "all"  # in a list: every kind, also those that need a word of their own
SUMS = ("curves", "gram", "grid", "keepsakes", "labels", "moments", "newton", "paired", "scores", "thresholds")
"""Kinds of sums that may be asked: of scores and of curves over a split's cases, and of two models' scores of the same
cases (paired); over the training cases, of their
labels, their event times (grid), of what later steps' methods go on from (keepsakes), and for exact fits moments, Gram
sums (ridge), Newton's gradients and Hessians and, of a segmentation, histograms of voxels' scores (thresholds)."""
NEED_A_WORD: dict[str, dict[str, str]] = {  # field -> kind that an empty list does not allow -> why
    "federations": {
        "averaged_moments": "beside its update it sends means of its gradients and of their squares",
        "inflora": "before a step's first round and at its end it sends second moments of what adapted layers see",
        "projection": "at a step's end it sends second moments of what each adapted layer sees of the patients",
        "scaffold": "what its first round sends is a mean raw gradient",
    },
    "parts": {
        "full": "it trains and sends tensors of the frozen model itself, after replacing them by the coordinator's",
        "patch_embed": "it is the first layer that images meet: a crafted one can copy them into an update",
        "resolution": "it is the first layer that images meet: a crafted one can copy them into an update",
    },
}


@dataclass(frozen=True)
class Ceiling:
    """The most of its patients' privacy that a hospital spends, for good.

    Args:
        of: the kind of releases that it is over; empty: everything.
    """

    epsilon: float
    delta: float
    of: str = ""


SUMS_WITH_NOISE = "sums"  # as the account calls them
UNSAID = Ceiling(10.0, 0.001, of=SUMS_WITH_NOISE)
"""For noised sums where a hospital with minimums names none: the weakest epsilon that still counts as protection
(Ponomareva et al. 2023, How to DP-fy ML, tier 2)."""


@dataclass
class Budget:
    """``policy.privacy``: what may be spent, and whether anything leaves without noise at all."""

    epsilon: float | None = None  # over every step, run and restart; null: none, but `UNSAID` of noised sums
    delta: float | None = None  # at which epsilon is meant: well below one over the number of patients
    strict: bool = False  # nothing leaves without noise: no scores, no statistics, no counts


@dataclass
class Policy:
    """Local rules from ``center.yaml``. An empty list allows every kind but those of `NEED_A_WORD`; ``[all]`` those,
    too."""

    tasks: list[str] = field(default_factory=list)  # allowed kinds of tasks
    federations: list[str] = field(default_factory=list)  # allowed aggregation rules and local methods
    parts: list[str] = field(default_factory=list)  # allowed kinds of adapter parts
    sums: list[str] = field(default_factory=list)  # allowed kinds of sums, of SUMS
    bases: list[str] = field(default_factory=list)  # allowed digests of the frozen model
    # Allowed digests of a step's first state that this vault has not seen, whatever its round.
    initialisations: list[str] = field(default_factory=list)
    # Later states lie at most this many times as far from this center's own last state as its own last update was long;
    # null: anywhere.
    reach: float | None = 30.0
    minimum_cases: int = 5  # fewer training cases than this: do not train
    minimum_cell: int = 5  # results of fewer cases than this do not leave
    test_folds: Any = field(default_factory=lambda: [0])  # folds of this center's split that may test, or all
    minimum_batch: int = 2  # fewer cases than this in a batch: do not train
    maximum_epochs: int = 50  # passes over the training cases in one round
    maximum_rounds: int = 1000  # of a step
    maximum_questions: int = 20_000  # points of exact fits, over every step and run, about any one column or target
    maximum_seconds: float = 7200.0  # for one message; then its process is ended
    maximum_memory_gb: float | None = None  # resident, for one message; null: nine tenths of what this machine has
    maximum_vault_gb: float | None = 100.0  # of states of steps that the vault keeps; beyond, no new step; null: any
    require_privacy: bool = False  # nothing is learned here without noise; a budget asks for that, too
    privacy: Budget = field(default_factory=Budget)
    require_secure_aggregation: bool = False  # updates, losses and scores leave as secure sums only
    quiet_hours: list[str] = field(
        default_factory=list
    )  # local times such as 08:00-18:00 in which no order is answered


def ceiling_of(policy: Policy) -> Ceiling | None:
    """The hospital's ceiling; None where it sets none. Raises ConfigError for one that is none."""
    budget = policy.privacy
    if budget.epsilon is None and budget.delta is None:
        return None
    epsilon, delta = budget.epsilon, budget.delta
    if epsilon is None or delta is None or not 0 < epsilon < math.inf or not 0 < delta < 1:
        raise ConfigError(
            f"policy.privacy has epsilon {epsilon} and delta {delta}; write both, a positive epsilon such as 8 and a "
            "delta between 0 and 1, well below one over the number of patients, such as 0.001."
        )
    return Ceiling(epsilon, delta)


def demands_privacy(policy: Policy) -> bool:
    """Whether a step that learns from patients without noise is refused."""
    return policy.require_privacy or policy.privacy.strict or ceiling_of(policy) is not None


def test_folds(policy: Policy) -> list[int] | None:
    """The folds that may test, in order; None for all. Raises ConfigError."""
    if policy.test_folds == "all":
        return None
    try:
        folds = sorted({int(fold) for fold in policy.test_folds})
    except (TypeError, ValueError):
        folds = []
    if not folds or folds[0] < 0 or isinstance(policy.test_folds, str):
        raise ConfigError(
            f"policy.test_folds is {policy.test_folds}; write the folds that may test, from 0 on, as in [0], or all."
        )
    return folds


def check_cases(policy: Policy, cases: int) -> None:
    """Raise PolicyRefusal when too few patients would train: their update could reveal them."""
    if cases < max(policy.minimum_cases, 1):
        raise PolicyRefusal(
            TOO_FEW_CASES, f"{cases} usable training cases; local policy asks for {max(policy.minimum_cases, 1)}."
        )
