"""The enrolled hospitals: one public key each, and no key twice."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from common.errors import FedgraftError
from common.files import write_bytes
from server.deploy.folder import Deployment, check_code


def enrol(deployment: Deployment, code: str, public_key: Path) -> str:
    """Write a hospital's key to the list, in the place of an earlier one; its fingerprint.

    Raises:
        FedgraftError: the code or the key cannot be used, or another center has that key.
    """
    from server.deploy.control import key_bytes

    check_code(code)
    key = key_bytes(public_key)
    others = [
        other
        for other in deployment.codes()
        if other != code and key_bytes(deployment.enrolled / f"{other}.pub") == key
    ]
    if others:
        raise FedgraftError(f"This is the key of {others[0]} already; every hospital makes its own.")
    content = public_key.read_bytes()
    write_bytes(deployment.enrolled / f"{code}.pub", content)
    return fingerprint(content)


def refuse(deployment: Deployment, code: str) -> None:
    """Take a hospital off the list. Raises FedgraftError when it is not on it."""
    if code not in deployment.codes():
        raise FedgraftError(f"'{code}' is not enrolled. Enrolled: {', '.join(deployment.codes()) or 'nobody'}.")
    (deployment.enrolled / f"{code}.pub").unlink()


def fingerprint(public_key: bytes) -> str:
    """SHA256:… of a public key's file, as `ssh-keygen -l` prints it."""
    digest = hashlib.sha256(base64.b64decode(public_key.split()[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")
