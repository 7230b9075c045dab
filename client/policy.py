"""The hospital's floor: what a center will not do, whatever the server asks. A refusal is a normal reply."""

from __future__ import annotations

from dataclasses import dataclass, field

from common.errors import PolicyRefusal
from common.orders import TOO_FEW_CASES, Order


@dataclass
class Policy:
    """Local rules from ``center.yaml``. Empty lists allow everything."""

    tasks: list[str] = field(default_factory=list)
    bases: list[str] = field(default_factory=list)  # allowed digests of the frozen model
    minimum_cases: int = 1  # fewer training cases than this: do not train
    minimum_cell: int = 1  # results of fewer cases than this do not leave
    maximum_rounds: int = 1000


def check_order(policy: Policy, order: Order) -> None:
    """Raise PolicyRefusal for a step that breaks the local floor, before any data is opened."""
    kind = order.step.task.kind
    if policy.tasks and kind not in policy.tasks:
        raise PolicyRefusal("declined.task", f"Local policy allows {policy.tasks}; the step asks for '{kind}'.")
    if policy.bases and order.base not in policy.bases:
        raise PolicyRefusal("declined.base", f"Frozen model {order.base[:12]} is not on the local allow-list.")
    if order.round > policy.maximum_rounds:
        raise PolicyRefusal("declined.rounds", f"Round {order.round} is beyond the local {policy.maximum_rounds}.")


def check_cases(policy: Policy, cases: int) -> None:
    """Raise PolicyRefusal when too few patients would train: their update could reveal them."""
    if cases < max(policy.minimum_cases, 1):
        raise PolicyRefusal(
            TOO_FEW_CASES, f"{cases} usable training cases; local policy asks for {max(policy.minimum_cases, 1)}."
        )
