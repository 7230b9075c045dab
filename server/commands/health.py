"""Ask the running coordinator whether it is alive: SuperLink, certificate, nginx; exit code 0 if so, 2 if not.

For compose, systemd and monitoring; it asks over loopback.
"""

from __future__ import annotations

import argparse
from pathlib import Path

EXAMPLE = "python -m server health federation"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="the coordinator's folder")


def run(arguments: argparse.Namespace) -> int:
    """Print one line."""
    from server.deploy.folder import Deployment
    from server.deploy.processes import health

    health(Deployment.open(arguments.folder))
    print("serving")
    return 0
