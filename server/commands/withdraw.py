"""Take a center out of what was fitted from its sums."""

from __future__ import annotations

import argparse
from pathlib import Path

EXAMPLE = "python -m server withdraw runs/quickstart --center CHUM"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="a run folder, e.g. runs/quickstart")
    parser.add_argument("--center", required=True, help="the code of the center that leaves, e.g. CHUM")


def run(arguments: argparse.Namespace) -> int:
    """Withdraw, step by step."""
    from server.learning.withdraw import withdraw

    for done in withdraw(arguments.folder, arguments.center):
        print(done.text)
    return 0
