"""Hospitals, runs, the round under way and the last entries of the ledger; --watch shows it until stopped."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

EXAMPLE = "python -m server status federation --watch"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="the coordinator's folder")
    parser.add_argument("--watch", action="store_true", help="show it again every few seconds, until stopped")
    parser.add_argument(
        "--metrics", type=Path, metavar="FILE", help="also write it for Prometheus: a textfile (*.prom)"
    )
    parser.add_argument("--every", type=float, default=3.0, metavar="SECONDS", help="with --watch (3)")


def run(arguments: argparse.Namespace) -> int:
    """Print it, once or until stopped."""
    from rich.console import Console

    from server.deploy.folder import Deployment
    from server.deploy.status import status, table

    deployment, console = Deployment.open(arguments.folder), Console()
    while True:
        found = status(deployment)
        if arguments.watch:
            console.clear()
        console.print(table(found))
        if arguments.metrics is not None:
            from server.deploy.metrics import write_metrics

            write_metrics(arguments.metrics, found)
        if not arguments.watch:
            return 0 if found.is_serving else 1
        time.sleep(arguments.every)
