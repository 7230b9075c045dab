"""An exported bank: the folder's files are those that the coordinator signed (`server.run.export`)."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from common.errors import BankError
from common.store.bank import HEADS

FORMAT = 1
MANIFEST, SIGNATURE, PUBLIC_KEY = "manifest.json", "manifest.sig", "signer.pub"


def bank_in(given: Path) -> Path | None:
    """The bank that a folder is, or holds."""
    return next((folder for folder in (given, given / "bank") if (folder / HEADS).is_file()), None)


def split_bank(given: str) -> tuple[Path, str | None]:
    """The folder, and the lineage if one is named, of ``PATH`` or ``PATH:LINEAGE``."""
    path = Path(given)
    if path.exists() or ":" not in given:
        return path, None
    before, _, lineage = given.rpartition(":")
    return Path(before), lineage


def export_of(given: Path) -> Path | None:
    """The exported folder that a folder is, or is the bank of."""
    return next((folder for folder in (given, given.parent) if (folder / MANIFEST).is_file()), None)


def check_export(folder: Path, *, signer: str | None = None) -> dict[str, Any]:
    """The manifest of an exported folder in which nothing was changed, added or removed since it was signed.

    Args:
        signer: fingerprint of the coordinator's key; without it only the folder's own key is checked.

    Raises:
        BankError: it was changed, or another key signed it.
    """
    try:
        content = (folder / MANIFEST).read_bytes()
        public = load_pem_public_key((folder / PUBLIC_KEY).read_bytes())
        assert isinstance(public, ed25519.Ed25519PublicKey)
        public.verify((folder / SIGNATURE).read_bytes(), content)
        manifest = json.loads(content)
    except (OSError, ValueError, AssertionError, InvalidSignature) as error:
        raise BankError(f"{folder} has no valid signature; ask the coordinator for it again.") from error
    if signer is not None and fingerprint(public) != signer:
        raise BankError(f"{folder} is signed by {fingerprint(public)}, not by {signer}; do not use it.")
    if manifest.get("format") != FORMAT:
        raise BankError(f"{folder} has format {manifest.get('format')}; this release reads {FORMAT}.")
    present = {name: file_digest(folder / name) for name in signed_files(folder)}
    wrong = sorted(name for name in {*present, *manifest["files"]} if present.get(name) != manifest["files"].get(name))
    if wrong:
        raise BankError(f"{folder} was changed after it was signed: {', '.join(wrong)}; ask for it again.")
    return manifest


def fingerprint(key: ed25519.Ed25519PublicKey) -> str:
    """SHA-256 of a public key's raw bytes, in hexadecimal."""
    return hashlib.sha256(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()


def signed_files(folder: Path) -> list[str]:
    apart = {MANIFEST, SIGNATURE}
    found = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return [name for name in found if name not in apart]


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
