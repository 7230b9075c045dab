"""Run the coordinator's processes until stopped: Flower's SuperLink, the executor of its runs, and nginx.

The SuperLink listens on loopback, with TLS, for enrolled keys only; nginx passes Flower's fleet paths on to it and
refuses everything else. What ends is started again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

EXAMPLE = "python -m server start federation"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="the coordinator's folder")


def run(arguments: argparse.Namespace) -> int:
    """Run until stopped."""
    from server.deploy.folder import Deployment
    from server.deploy.processes import serve

    serve(Deployment.open(arguments.folder), say=lambda line: print(line, flush=True))
    return 0
