"""Stopped rounds: a round that is void for want of a disk, a vault or the newest ledger is not counted but repeated.

Any other void round counts as one of the step's rounds. These do not: what is wrong lasts until a person mends it, and
the same command then goes on to the adapters of an undisturbed run. One center alone stops nothing: a round is void
only below the quorum.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DISK = ("disk", "unrecorded")
LOST = ("vault",)
AHEAD = ("vault.ahead",)
REMEDIES = {
    DISK: "Their disks are full or read-only; their own logs name the file. Free space there",
    LOST: "Their vaults lack what earlier rounds left there; their own logs say what. Have the vaults restored, or the "
    "loss accepted (`python -m client afresh`)",
    AHEAD: "Their vaults have seen a later round of this run than its ledger holds: the ledger was rolled back. "
    "Restore the newest ledger.jsonl, or start a new run folder",
}


def why_stopped(event: Mapping[str, Any]) -> str:
    """Why a void round is not counted, as the rest of a sentence; empty where it counts."""
    if not event["void"]:
        return ""
    for codes, remedy in REMEDIES.items():
        named = {center: code for center, code in sorted(event["failed"].items()) if code in codes}
        if named:
            listed = ", ".join(f"{center}: {code}" for center, code in named.items())
            return f"{listed}. {remedy}, and start the same command again, which repeats the round."
    return ""


def stopped(event: Mapping[str, Any], why: str) -> dict[str, Any]:
    """The ledger's row of a round that is not counted: whose fault, and the bytes that crossed all the same."""
    kept = {name: event[name] for name in ("step", "round", "failed", "bytes")}
    return {**kept, "joining_bytes": event.get("joining_bytes", {}), "why": why}


def short_of_disks(event: Mapping[str, Any]) -> str:
    """What a round that counts went without for want of a disk, as a sentence; empty where nothing."""
    full = sorted(center for center, code in event.get("failed", {}).items() if code in DISK)
    if event.get("void") or not full:
        return ""
    return (
        f"Round {event['round']} counts without {', '.join(full)}, whose disks are full or read-only: it had enough "
        "updates and is not repeated, so its adapter is not that of an undisturbed run."
    )
