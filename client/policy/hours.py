"""Quiet hours: local times in which this machine is left alone."""

from __future__ import annotations

import re
from datetime import datetime, time

from client.policy.policy import Policy
from common.errors import ConfigError, PolicyRefusal

_SPAN = re.compile(r"(\d\d):(\d\d)-(\d\d):(\d\d)")


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


def check_quiet(policy: Policy, now: datetime) -> None:
    """Raise PolicyRefusal within a quiet span, ConfigError where one is no span."""
    clock = now.time().replace(tzinfo=None)
    for start, end in quiet_spans(policy):
        within = start <= clock < end if start < end else clock >= start or clock < end
        if within:
            raise PolicyRefusal(
                "declined.quiet_hours",
                f"It is {clock:%H:%M}; local policy keeps this machine free from {start:%H:%M} to {end:%H:%M}.",
            )
