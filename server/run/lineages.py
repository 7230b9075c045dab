"""Heads: which adapter of a lineage is in use, changed by people and written to the ledger."""

from __future__ import annotations

from common.errors import BankError
from common.store.bank import AdapterBank
from common.store.ledger import Ledger
from server.run.folder import RunFolder, alone_in


def promote(folder: RunFolder, lineage: str, key: str, *, reason: str = "", kind: str = "promoted") -> str:
    """Point a lineage at one of its own adapters, named by the beginning of its key; the whole key.

    Raises:
        BankError: no adapter of the lineage, or several, begin so.
        RoundFailed: the run is going on.
    """
    bank = AdapterBank(folder.bank)
    found = [whole for whole in keys_of(bank, lineage) if whole.startswith(key)]
    if len(found) != 1:
        known = ", ".join(whole[:12] for whole in keys_of(bank, lineage)) or "nothing"
        raise BankError(f"{len(found)} adapters of '{lineage}' begin with '{key}'; it has {known}.")
    with alone_in(folder, patience_s=0.0):
        previous = bank.head(lineage)
        bank.promote(lineage, found[0])
        event = {"lineage": lineage, "key": found[0], "previous_key": previous, "reason": reason}
        Ledger(folder.ledger).append(kind, event)
    return found[0]


def rollback(folder: RunFolder, lineage: str, *, reason: str = "") -> str:
    """Point a lineage at the head that it had before the present one; its key. Raises BankError without one."""
    heads = head_history(Ledger(folder.ledger), lineage)
    if len(heads) < 2:
        present = AdapterBank(folder.bank).head(lineage)
        raise BankError(f"'{lineage}' has had no other head than {present[:12]}; there is nothing to go back to.")
    return promote(folder, lineage, heads[-2], reason=reason, kind="rolled_back")


def head_history(ledger: Ledger, lineage: str) -> list[str]:
    """The lineage's heads up to the present one, without those that were rolled back."""
    heads: list[str] = []
    for event in ledger.events(lineage=lineage):
        if event["kind"] == "rolled_back":
            heads.pop()
        elif event["kind"] in ("step_finished", "promoted") and heads[-1:] != [event["key"]]:
            heads.append(event["key"])
    return heads


def heads_of(ledger: Ledger) -> dict[str, str]:
    """Every lineage's head as the ledger tells it; the lineage that was committed to last is the last one."""
    heads: dict[str, str] = {}
    lineages: dict[str, str] = {}
    for event in ledger.events():
        if event["kind"] == "run_started":
            heads |= event.get("continues", {}).get("heads", {})
        elif event["kind"] == "step_finished":
            lineages[event["step"]] = event["lineage"]
            heads.pop(event["lineage"], None)
            heads[event["lineage"]] = event["key"]
        elif event["kind"] == "step_refitted" and event["step"] in lineages:
            heads.pop(lineages[event["step"]], None)
            heads[lineages[event["step"]]] = event["key"]
        elif event["kind"] in ("promoted", "rolled_back"):
            heads[event["lineage"]] = event["key"]
    return heads


def keys_of(bank: AdapterBank, lineage: str) -> list[str]:
    """Keys of a lineage's adapters, sorted."""
    found = sorted(path.parent.name for path in bank.folder.glob("*/entry.json"))
    return [key for key in found if bank.entry(key).lineage == lineage]
