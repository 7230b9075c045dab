"""Policy: a hospital's own rules, from ``center.yaml``, and what follows from its two minimums."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from common.errors import ConfigError, PolicyRefusal
from common.protocol.messages import TOO_FEW_CASES


@dataclass
class Policy:
    """Local rules from ``center.yaml``. Empty lists allow everything."""

    tasks: list[str] = field(default_factory=list)
    bases: list[str] = field(default_factory=list)  # allowed digests of the frozen model
    minimum_cases: int = 5  # fewer training cases than this: do not train
    minimum_cell: int = 5  # results of fewer cases than this do not leave
    maximum_rounds: int = 1000
    parts: list[str] = field(default_factory=list)  # allowed kinds of adapter parts
    initialisations: list[str] = field(
        default_factory=list
    )  # allowed digests of the state that a step's round 1 brings
    test_folds: Any = field(default_factory=lambda: [0])  # folds of this center's split that may test, or all
    require_privacy: bool = False
    require_secure_aggregation: bool = False
    quiet_hours: list[str] = field(default_factory=list)  # local times such as 08:00-18:00 in which nothing is trained


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
