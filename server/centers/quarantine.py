"""Quarantine: who had updates rejected, who is suspended for it, and who was released; read from the ledger alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from common.errors import LedgerError
from common.store.ledger import Ledger
from server.centers.screening import Rejection

GUARDED = frozenset(
    {
        "conflicting", "counts", "impossible", "incomplete", "malformed", "norm", "not_finite", "replayed", "stale",
        "undeclared", "wrong_center",
    }
)  # fmt: skip
"""Codes that the guards give. Others (a refusal, a crash, silence) are a center's own trouble and cost no strike."""


def strikes(ledger: Ledger) -> dict[str, int]:
    """Quarantined updates by center, since its last release."""
    counted: dict[str, int] = {}
    for event in ledger.events():
        if event["kind"] == "round_finished" and not _is_nobodys(event):
            for center in event.get("quarantined", {}):
                counted[center] = counted.get(center, 0) + 1
        elif event["kind"] == "reply_rejected" and event["code"] in GUARDED:
            counted[event["center"]] = counted.get(event["center"], 0) + 1
        elif event["kind"] == "center_released":
            counted.pop(event["center"], None)
    return counted


def _is_nobodys(event: Mapping[str, Any]) -> bool:
    """A round of which no update could be used: what made them all so was sent to them, or struck them all."""
    several = len(event.get("quarantined", {})) > 1
    return several and not event.get("train") and not set(event.get("failed", {})) - set(event["quarantined"])


def record_rejected(ledger: Ledger, center: str, rejection: Rejection, *, step: str, action: str) -> None:
    """A strike for an answer that is no training round's: to describe, sums or test scores."""
    if rejection.code in GUARDED:
        event = {"center": center, "step": step, "action": action, "code": rejection.code, "told": rejection.told}
        ledger.append("reply_rejected", event)


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
