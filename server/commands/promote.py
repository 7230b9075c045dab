"""Point a lineage at another of its adapters, on the ledger; the run must not be going on."""

from __future__ import annotations

import argparse
from pathlib import Path

EXAMPLE = "python -m server promote federation/runs/first tumour 3fa9c2"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="a run folder")
    parser.add_argument("lineage", help="a lineage of its bank; by default a step's own name")
    parser.add_argument("key", help="the beginning of the adapter's key, as in the report")
    parser.add_argument("--reason", default="", help="for the record")


def run(arguments: argparse.Namespace) -> int:
    """Change the head and say so."""
    from server.run.folder import existing
    from server.run.lineages import promote

    folder = existing(arguments.folder)
    print(f"{arguments.lineage} is now {promote(folder, arguments.lineage, arguments.key, reason=arguments.reason)}")
    return 0
