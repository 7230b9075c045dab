"""Quarantine: who had updates rejected, who is suspended for it, and who was released; read from the ledger alone."""

from __future__ import annotations

from collections.abc import Iterable

from common.errors import LedgerError
from common.store.ledger import Ledger

GUARDED = frozenset(
    {
        "conflicting", "counts", "incomplete", "malformed", "norm", "not_finite", "replayed", "stale", "undeclared",
        "wrong_center",
    }
)  # fmt: skip
"""Codes that the guards give. Others (a refusal, a crash, silence) are a center's own trouble and cost no strike."""


def strikes(ledger: Ledger) -> dict[str, int]:
    """Quarantined updates by center, since its last release."""
    counted: dict[str, int] = {}
    for event in ledger.events():
        if event["kind"] == "round_finished":
            for center in event.get("quarantined", {}):
                counted[center] = counted.get(center, 0) + 1
        elif event["kind"] == "center_released":
            counted.pop(event["center"], None)
    return counted


def suspended(ledger: Ledger, *, limit: int) -> list[str]:
    """Centers with at least ``limit`` strikes, by code; a limit of 0 suspends nobody."""
    return sorted(center for center, count in strikes(ledger).items() if limit > 0 and count >= limit)


def release(ledger: Ledger, centers: Iterable[str], *, reason: str) -> list[str]:
    """Let centers take part again, on the record. Raises LedgerError for one without strikes."""
    counted = strikes(ledger)
    wanted = sorted(set(centers))
    unknown = [center for center in wanted if center not in counted]
    if unknown:
        raise LedgerError(
            f"{', '.join(unknown)} has no quarantined update to be released from; with some: "
            f"{', '.join(sorted(counted)) or 'none'}."
        )
    for center in wanted:
        ledger.append("center_released", {"center": center, "strikes": counted[center], "reason": reason})
    return wanted
