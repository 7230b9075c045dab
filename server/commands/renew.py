"""A new server key and certificate from the same authority; hospitals need not change anything.

Needs ca.key in the folder, for this command only. Restart `python -m server start` afterwards.
"""

from __future__ import annotations

import argparse
from pathlib import Path

EXAMPLE = "python -m server renew federation --days 825"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="the coordinator's folder")
    parser.add_argument("--days", type=int, default=825, help="days that the certificate is valid (825)")


def run(arguments: argparse.Namespace) -> int:
    """Write it."""
    from server.deploy.certificates import days_left
    from server.deploy.folder import Deployment, renew

    deployment = Deployment.open(arguments.folder)
    renew(deployment, days=arguments.days)
    days = days_left(deployment.certificate)
    print(f"{deployment.certificate} is valid for {days:.0f} days; restart `python -m server start`")
    return 0
