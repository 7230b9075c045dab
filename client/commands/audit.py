"""Verify and print what left this site: when, for which step and round, how many bytes, under which names.

The record is a chain of hashes: a line that was changed, added or taken out in the middle breaks it, and the command
ends with the line's number and exit code 2. Lines cut off at the end leave a whole chain: note the last hash that is
printed somewhere else, and hand it to --contains next time.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

from client.commands.files import add_center, center_of, vault_of
from client.vault.outbox import FILE, REPLY
from common.errors import LedgerError

EXAMPLE = "python -m client audit --center center.yaml"
NOTHING = "0" * 64


def arguments(parser: argparse.ArgumentParser) -> None:
    add_center(parser)
    parser.add_argument("--json", action="store_true", help="the events and their totals as JSON")
    parser.add_argument("--contains", metavar="HASH", help="a hash noted earlier that must still be in the chain")


def run(arguments: argparse.Namespace) -> int:
    """Print the record. Raises LedgerError where its chain does not hold."""
    found = audit(vault_of(center_of(arguments)), contains=arguments.contains)
    if arguments.json:
        print(json.dumps(found, indent=1))
    else:
        _print(found)
    return 0


def audit(vault: Path, *, contains: str | None = None) -> dict[str, Any]:
    """Events, totals by step and action, and the last hash, of a record whose chain holds.

    Raises:
        LedgerError: the chain is broken, or a hash noted earlier is no longer in it.
    """
    from common.store.ledger import Ledger

    events = Ledger(vault / FILE).events(REPLY)
    hashes = [event["hash"] for event in events]
    if contains is not None and contains not in (*hashes, NOTHING):
        raise LedgerError(
            f"{vault / FILE} holds whole lines, but none with the hash {contains[:16]}…: lines were removed after that "
            "hash was noted. Compare with a backup of the vault."
        )
    bytes_by, replies_by = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for event in events:
        bytes_by[event["step"], event["action"]] += event["bytes"]
        replies_by[event["step"], event["action"]] += 1
    totals = [
        {"step": step, "action": action, "replies": replies_by[step, action], "bytes": total}
        for (step, action), total in sorted(bytes_by.items())
    ]
    return {"events": events, "totals": totals, "last_hash": hashes[-1] if hashes else NOTHING}


def _print(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(width=max(Console().width, 120))
    table = Table(title="What left this site", title_justify="left")
    for name in ("time (UTC)", "asked to", "step", "round", "code", "bytes", "arrays", "parts", "sums", "counts"):
        table.add_column(name, justify="right" if name in ("round", "bytes", "arrays", "sums") else "left")
    for event in found["events"]:
        counts = " ".join(f"{name} {value}" for name, value in event["counts"].items())
        table.add_row(
            event["time"][:19].replace("T", " "), event["action"], event["step"], str(event["round"]), event["code"],
            f"{event['bytes']:,}", str(event["arrays"]), ", ".join(event["parts"]), str(len(event["sums"])), counts,
        )  # fmt: skip
    console.print(table)
    for total in found["totals"]:
        console.print(f"{total['step']}, {total['action']}: {total['replies']} replies, {total['bytes']:,} bytes")
    names = sorted({name for event in found["events"] for name in event["sums"]})
    console.print(f"sums that left, by name: {', '.join(names) or 'none'}", highlight=False)
    console.print(f"{len(found['events'])} replies; the chain holds; last hash {found['last_hash']}", highlight=False)
