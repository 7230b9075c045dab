"""Write results.json and report.html again, from the ledger."""

from __future__ import annotations

import argparse
from pathlib import Path

EXAMPLE = "python -m server report runs/quickstart"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="a run folder, e.g. runs/quickstart")


def run(arguments: argparse.Namespace) -> int:
    """Print the report's path."""
    from server.run.finish import write_outputs

    print(write_outputs(arguments.folder))
    return 0
