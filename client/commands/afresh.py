"""Accept that a part of the vault is lost: steps that need it go on as if this center had only now begun.

Without it a center that lacks what earlier rounds left in its vault answers with the code `vault` and trains nothing.
Restore the vault from a backup where there is one. The vault also holds the split and the list of erased patients: if
the whole vault is gone, erase the erased patients again first (`python -m client erase`). What is accepted is said in
this center's log, in the coordinator's ledger and in the report.
"""

from __future__ import annotations

import argparse

from client.commands.files import add_center, center_of, vault_of

EXAMPLE = "python -m client afresh --center center.yaml --accept"


def arguments(parser: argparse.ArgumentParser) -> None:
    add_center(parser)
    parser.add_argument("--accept", action="store_true", help="accept what is listed; without it nothing changes")


def run(arguments: argparse.Namespace) -> int:
    """List what is missing and, with --accept, give it up."""
    from client.vault.standing import give_up, losses

    vault = vault_of(center_of(arguments))
    found = losses(vault)
    if not found:
        print("Nothing that a coordinator has asked for is missing from the vault.")
        return 0
    for row in found:
        print(f"  run {row['run'][:12]}, step {row['step']}: what round {row['since']} left")
    if not arguments.accept:
        print("Restore the vault from a backup, or accept the loss with --accept: these steps then go on from nothing.")
        return 1
    give_up(vault)
    print(f"{len(found)} losses are accepted; the next message goes on without them.")
    return 0
