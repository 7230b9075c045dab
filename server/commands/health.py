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
    """Print one line, and one more for each certificate that ends within 30 days."""
    from server.deploy.folder import Deployment
    from server.deploy.processes import health
    from server.deploy.status import warnings_of

    deployment = Deployment.open(arguments.folder)
    health(deployment)
    print("\n".join(["serving", *warnings_of(deployment)]))
    return 0
