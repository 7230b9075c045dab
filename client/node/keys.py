"""This node's key pair, by which coordinator and partners know it, and the keys of the hospitals that it sums with."""

from __future__ import annotations

import base64
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from common.errors import ConfigError
from common.files import write_bytes

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey


def make_keys(path: Path, *, comment: str) -> str:
    """The public key of ``path``: EC P-384 in OpenSSH's format, as Flower's node authentication reads it.

    An existing private key is kept: the coordinator knows this node by it.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    openssh = serialization.Encoding.OpenSSH
    if path.exists():
        key = load_key(path)
    else:
        key = ec.generate_private_key(ec.SECP384R1())
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        )
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(private)
    public = key.public_key().public_bytes(openssh, serialization.PublicFormat.OpenSSH).decode() + f" {comment}"
    write_bytes(path.with_name(path.name + ".pub"), (public + "\n").encode())
    return public


def load_key(path: Path) -> EllipticCurvePrivateKey:
    """The node's private key. Raises ConfigError where it is none that Flower takes."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key

    try:
        key = load_ssh_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError(
            f"{path} is not a private key that can be read ({type(error).__name__}); name another with --key, or move "
            "it aside so that a new one is made and enrolled."
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigError(
            f"{path} is no elliptic-curve key; Flower's nodes need one (P-384): make it with this command."
        )
    return key


def fingerprint(public: str) -> str:
    """SHA256:… of a public key's line, as `ssh-keygen -l` prints it."""
    digest = hashlib.sha256(base64.b64decode(public.split()[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def partners_of(folder: Path) -> dict[str, EllipticCurvePublicKey]:
    """Code -> public key of each hospital whose ``CODE.pub`` lies in a folder.

    Raises:
        ConfigError: the folder is none, or a file in it is no such key.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_ssh_public_key

    if not folder.is_dir():
        raise ConfigError(f"partners: {folder} is no folder; put each hospital's CODE.pub there, from itself.")
    found = {}
    for path in sorted(folder.glob("*.pub")):
        try:
            key = load_ssh_public_key(path.read_bytes())
        except (OSError, ValueError, UnsupportedAlgorithm) as error:
            raise ConfigError(f"{path} is not a public key that can be read ({type(error).__name__}).") from error
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise ConfigError(f"{path} is no elliptic-curve key, as a hospital's node has; ask for its CODE.pub again.")
        found[path.stem] = key
    return found
