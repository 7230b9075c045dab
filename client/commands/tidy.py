"""Remove what is older than `retention` in center.yaml: prepared volumes, log lines, what ended steps left.

Without --delete it only lists. The account of privacy, the record of what left and of what was released, the split and
the erased patients are never touched. A step whose shelf is gone can go on only as if this center had begun anew
(`python -m client afresh`); a log that the running node writes is shortened when the node is stopped.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from client.commands.files import add_center, center_of, vault_of

if TYPE_CHECKING:
    from client.retention.tidying import Old

EXAMPLE = "python -m client tidy --center center.yaml\n  python -m client tidy --center center.yaml --delete"


def arguments(parser: argparse.ArgumentParser) -> None:
    add_center(parser)
    parser.add_argument("--delete", action="store_true", help="remove what is listed; without it nothing changes")


def run(arguments: argparse.Namespace) -> int:
    """List by kind and, with --delete, remove."""
    from pathlib import Path

    from client.node.node import home_of
    from client.retention.tidying import LOG, old_things, remove
    from client.vault.lock import is_held

    config = center_of(arguments)
    if all(days is None for days in vars(config.retention).values()):
        print(
            f"{arguments.center} sets no retention, so nothing goes by age; set retention.cache_days, log_days or "
            "step_days there."
        )
        return 0
    home = home_of(arguments.center, config.code)
    found = old_things(config.retention, cache=Path(config.cache), vault=vault_of(config), home=home)
    running = is_held(home / ".lock")
    waiting = [one for one in found if running and one.kind == LOG]
    ready = [one for one in found if one not in waiting]
    _list(ready)
    if waiting:
        print(f"  {len(waiting)} logs are being written; stop the node to shorten them")
    if arguments.delete:
        print(f"removed: {remove(ready) / 1e6:.1f} MB are free again")
    elif ready:
        print("Nothing was removed; --delete removes it.")
    return 0


def _list(found: Sequence[Old]) -> None:
    kinds = sorted({one.kind for one in found})
    for kind in kinds:
        own = [one for one in found if one.kind == kind]
        print(f"  {kind}: {len(own)}, {sum(one.size for one in own) / 1e6:.1f} MB")
    if not kinds:
        print("  nothing is older than the retention")
