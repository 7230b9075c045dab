"""The hospital's floor: what a center will not do, whatever the server asks. A refusal is a normal reply."""

from client.policy.hours import quiet_spans
from client.policy.orders import check_order
from client.policy.policy import Policy, check_cases, test_folds

__all__ = ["Policy", "check_cases", "check_order", "quiet_spans", "test_folds"]
