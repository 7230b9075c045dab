"""Run or resume a curriculum over the enrolled hospitals, to its report; `python -m server start` must be running.

Started again after a crash of whatever kind, it continues after the last finished round.
"""

from __future__ import annotations

import argparse
from pathlib import Path

EXAMPLE = "python -m server run federation curriculum=quickstart name=first"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="the coordinator's folder")
    parser.add_argument("overrides", nargs="*", help="Hydra overrides, e.g. curriculum=quickstart name=first")


def run(arguments: argparse.Namespace) -> int:
    """Follow the run to its end and print the report's path."""
    from common.runtime.pulse import signs_of_life
    from server.deploy.folder import Deployment
    from server.deploy.runs import run_curriculum_here

    deployment = Deployment.open(arguments.folder)
    with signs_of_life():
        folder = run_curriculum_here(deployment, arguments.overrides, say=lambda line: print(line, flush=True))
    print(f"report: {folder.report}")
    return 0
