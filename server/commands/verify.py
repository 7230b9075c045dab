"""Rebuild every finished step from bank and frozen model and compare its outputs with those of its commit.

With --bundle: whether a bundle is as it was exported and its program answers as the run's own adapter does.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

EXAMPLE = "python -m server verify runs/quickstart\n  python -m server verify runs/quickstart --bundle tumor-bundle"
CLOSE = 1e-5


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="a run folder, e.g. runs/quickstart")
    parser.add_argument("--bundle", type=Path, help="instead: a bundle of `export --bundle`, beside this run")


def run(arguments: argparse.Namespace) -> int:
    """Exit code 1 when a bit changed, or a bundle's program is more than 1e-5 away."""
    from server.run.finish import verify_folder

    if arguments.bundle is not None:
        from server.bundle.check import check_against
        from server.run.folder import existing

        away = check_against(arguments.bundle, existing(arguments.folder))
        print(json.dumps({"largest_difference": away}))
        return 0 if away <= CLOSE else 1
    found = verify_folder(arguments.folder)
    print(json.dumps({"changed_bits": found.changed_bits, "base_after": found.base_after}))
    return 0 if found.total == 0 else 1
