"""Let a hospital's node in by its public key, replace its key, or refuse it from now on.

A running coordinator takes notice within seconds. A node speaks for the code that its key was enrolled under only.
"""

from __future__ import annotations

import argparse
from pathlib import Path

EXAMPLE = "python -m server enrol federation CHUM chum.pub"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="the coordinator's folder")
    parser.add_argument("code", help="the center's code, e.g. CHUM")
    parser.add_argument("public_key", type=Path, nargs="?", help="the .pub file that the hospital sent")
    parser.add_argument("--refuse", action="store_true", help="refuse this center's key from now on")


def run(arguments: argparse.Namespace) -> int:
    """Change the list of enrolled keys."""
    from common.errors import FedgraftError
    from server.deploy.folder import Deployment
    from server.deploy.hospitals import enrol, refuse

    deployment = Deployment.open(arguments.folder)
    if arguments.refuse:
        refuse(deployment, arguments.code)
        print(f"{arguments.code} is refused from now on; a running coordinator takes notice within seconds")
        return 0
    if arguments.public_key is None:
        raise FedgraftError("Name the .pub file that the hospital sent, or refuse the center with --refuse.")
    print(f"{arguments.code}: {enrol(deployment, arguments.code, arguments.public_key)}")
    print("compare the fingerprint with the hospital's, over the telephone, before you start a run")
    return 0
