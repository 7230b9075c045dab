"""Let suspended centers take part again, from the next round on; the decision goes on the ledger."""

from __future__ import annotations

import argparse
from pathlib import Path

EXAMPLE = 'python -m server release runs/quickstart CHUP --reason "scanner fixed"'


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="a run folder, also of a run that is going on")
    parser.add_argument("centers", nargs="+", help="center codes, e.g. CHUP")
    parser.add_argument("--reason", default="", help="for the record")


def run(arguments: argparse.Namespace) -> int:
    """Release and say who."""
    from common.store.ledger import Ledger
    from server.centers.quarantine import release
    from server.run.folder import RunFolder

    released = release(Ledger(RunFolder(arguments.folder).ledger), arguments.centers, reason=arguments.reason)
    print(f"released: {', '.join(released)}; they take part from the next round on")
    return 0
