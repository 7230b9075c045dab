"""Rebuild every finished step from bank and frozen model and compare its outputs with those of its commit."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

EXAMPLE = "python -m server verify runs/quickstart"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="a run folder, e.g. runs/quickstart")


def run(arguments: argparse.Namespace) -> int:
    """Exit code 1 when a bit changed."""
    from server.run.finish import verify_folder

    found = verify_folder(arguments.folder)
    print(json.dumps({"changed_bits": found.changed_bits, "base_after": found.base_after}))
    return 0 if found.total == 0 else 1
