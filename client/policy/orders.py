"""What an order may ask: each rule of a policy against it, before any data is opened.

The code of a refusal travels; its sentence stays in the center's log.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, time

from client.policy.policy import Policy, test_folds
from common.backbones.base import tensors_digest
from common.errors import ConfigError, PolicyRefusal
from common.protocol.messages import Order

_SPAN = re.compile(r"(\d\d):(\d\d)-(\d\d):(\d\d)")


def check_order(policy: Policy, order: Order, *, now: datetime | None = None) -> None:
    """Raise PolicyRefusal for a step that breaks the local floor, before any data is opened.

    Args:
        now: local time; the clock's where absent.

    Raises:
        ConfigError: quiet hours that are no times.
    """
    for check in _CHECKS:
        refusal = check(policy, order)
        if refusal is not None:
            raise refusal
    _check_quiet(policy, order, now or datetime.now())


def quiet_spans(policy: Policy) -> list[tuple[time, time]]:
    """Start and end of each quiet span; one whose end is not after its start runs over midnight. Raises ConfigError."""
    spans = []
    for text in policy.quiet_hours:
        match = _SPAN.fullmatch(text.strip())
        try:
            if match is None:
                raise ValueError(text)
            hours = [int(group) for group in match.groups()]
            spans.append((time(hours[0], hours[1]), time(hours[2], hours[3])))
        except ValueError as error:
            raise ConfigError(f"policy.quiet_hours holds '{text}'; write local times as in 08:00-18:00.") from error
    return spans


def _task(policy: Policy, order: Order) -> PolicyRefusal | None:
    kind = order.step.task.kind
    if not policy.tasks or kind in policy.tasks:
        return None
    return PolicyRefusal("declined.task", f"Local policy allows {policy.tasks}; the step asks for '{kind}'.")


def _parts(policy: Policy, order: Order) -> PolicyRefusal | None:
    foreign = sorted({part.kind for part in order.step.adapter.parts.values()} - set(policy.parts))
    if not policy.parts or not foreign:
        return None
    return PolicyRefusal(
        "declined.part",
        f"Local policy allows the adapter parts {policy.parts}; the step also has {', '.join(foreign)}.",
    )


def _base(policy: Policy, order: Order) -> PolicyRefusal | None:
    if not policy.bases or order.base in policy.bases:
        return None
    return PolicyRefusal("declined.base", f"Frozen model {order.base[:12]} is not on the local allow-list.")


def _initialisation(policy: Policy, order: Order) -> PolicyRefusal | None:
    """What round 1 starts from; later rounds start from what this center helped to make."""
    if not policy.initialisations or order.round != 1 or order.subset:
        return None
    digest = str(getattr(order, "digest", "")) or tensors_digest(order.state)
    if digest in policy.initialisations:
        return None
    return PolicyRefusal(
        "declined.initialisation", f"The step starts from adapter state {digest[:12]}, not on the local allow-list."
    )


def _rounds(policy: Policy, order: Order) -> PolicyRefusal | None:
    asked = max(order.round, order.step.rounds)
    if asked <= policy.maximum_rounds:
        return None
    return PolicyRefusal(
        "declined.rounds", f"The step asks for {asked} rounds; local policy allows {policy.maximum_rounds}."
    )


def _test_fold(policy: Policy, order: Order) -> PolicyRefusal | None:
    """Whose test patients: with another fold those who trained so far would test."""
    folds = test_folds(policy)
    if folds is None or order.split.fold in folds:
        return None
    return PolicyRefusal(
        "declined.split",
        f"The order asks for fold {order.split.fold} as the test; local policy allows {', '.join(map(str, folds))}. "
        "A cross-validated study needs policy.test_folds: all: then every patient trains some models and tests others.",
    )


def _privacy(policy: Policy, order: Order) -> PolicyRefusal | None:
    if not policy.require_privacy:
        return None
    return PolicyRefusal(
        "declined.privacy", "Local policy requires differential privacy, which this release cannot give: no step runs."
    )


def _secure_aggregation(policy: Policy, order: Order) -> PolicyRefusal | None:
    if not policy.require_secure_aggregation:
        return None
    return PolicyRefusal(
        "declined.secure_aggregation",
        "Local policy requires secure aggregation, which this release cannot give: no step runs.",
    )


def _check_quiet(policy: Policy, order: Order, now: datetime) -> None:
    clock = now.time().replace(tzinfo=None)
    for start, end in quiet_spans(policy):
        within = start <= clock < end if start < end else clock >= start or clock < end
        if within:
            raise PolicyRefusal(
                "declined.quiet_hours",
                f"It is {clock:%H:%M}; local policy keeps this machine free from {start:%H:%M} to {end:%H:%M}.",
            )


_CHECKS: tuple[Callable[[Policy, Order], PolicyRefusal | None], ...] = (
    _task, _parts, _base, _initialisation, _rounds, _test_fold, _privacy, _secure_aggregation,
)  # fmt: skip
