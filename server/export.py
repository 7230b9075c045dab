"""The bank as a folder that explains itself: adapters, what they are for, and a signature over every file.

A hospital predicts from it without any server; what it needs beside it is the frozen model of the same digest.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from omegaconf import OmegaConf

from common.bank import AdapterBank, Entry
from common.errors import BankError
from common.files import write_bytes, write_json
from common.ledger import Ledger
from server.folder import RunFolder

FORMAT = 1
MANIFEST, SIGNATURE, PUBLIC_KEY = "manifest.json", "manifest.sig", "signer.pub"
READ_ME = """# Adapters of the run {run}

Use one on your own images, without any server:

    python -m client predict --bank {folder} …

- `bank/` holds the adapters, each in a folder named by the hash of its content; `bank/heads.json` says which one of
  each lineage is in use. Tensors are safetensors files; `entry.json` holds the step that trained them.
- `manifest.json` says what each adapter is for and gives the SHA-256 of every file; `manifest.sig` is its Ed25519
  signature by the key in `signer.pub`. Compare that key's fingerprint with the coordinator's: {fingerprint}
- The frozen model is not here. Its digest is {base}.

{lines}
"""


def export(folder: RunFolder, out: Path, *, key: Path, everything: bool = False) -> Path:
    """Write the heads of a run's bank (or all its adapters) to a new folder and sign it; the manifest's path.

    Args:
        key: the coordinator's Ed25519 signing key; made where it is absent.

    Raises:
        BankError: the folder exists, or the bank is empty or damaged.
    """
    if out.exists():
        raise BankError(f"{out} exists; name a new folder, so that nothing old is signed along.")
    bank, started = AdapterBank(folder.bank), Ledger(folder.ledger).events("run_started")
    heads = bank.heads()
    if not heads or not started:
        raise BankError(f"{folder.path} has no finished step to export.")
    keys = sorted(path.parent.name for path in folder.bank.glob("*/entry.json")) if everything else heads.values()
    entries = {whole: bank.entry(whole) for whole in sorted(set(keys))}
    for whole in entries:
        bank.get(whole)  # checked against its hash before it is signed
        shutil.copytree(folder.bank / whole, out / "bank" / whole)
    write_json(out / "bank" / "heads.json", {lineage: head for lineage, head in heads.items() if head in entries})
    signer = _signing_key(key)
    public = signer.public_key()
    (out / PUBLIC_KEY).write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    manifest = _manifest(folder, started[0], entries, heads)
    text = READ_ME.format(
        run=started[0]["run"],
        folder=out.name,
        fingerprint=fingerprint(public),
        base=started[0]["base"],
        lines="\n".join(f"- {card['lineage']}: {card['for']}" for card in manifest["adapters"].values()),
    )
    write_bytes(out / "README.md", text.encode())
    manifest["files"] = {name: _digest(out / name) for name in _files(out)}
    write_json(out / MANIFEST, manifest)
    write_bytes(out / SIGNATURE, signer.sign((out / MANIFEST).read_bytes()))
    return out / MANIFEST


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
    present = {name: _digest(folder / name) for name in _files(folder)}
    wrong = sorted(name for name in {*present, *manifest["files"]} if present.get(name) != manifest["files"].get(name))
    if wrong:
        raise BankError(f"{folder} was changed after it was signed: {', '.join(wrong)}; ask for it again.")
    return manifest


def fingerprint(key: ed25519.Ed25519PublicKey) -> str:
    """SHA-256 of a public key's raw bytes, in hexadecimal."""
    return hashlib.sha256(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()


def _manifest(
    folder: RunFolder, started: dict[str, Any], entries: dict[str, Entry], heads: dict[str, str]
) -> dict[str, Any]:
    config: Any = OmegaConf.to_container(OmegaConf.load(folder.config))
    return {
        "format": FORMAT,
        "run": started["run"],
        "exported": datetime.now(UTC).isoformat(timespec="seconds"),
        "base": started["base"],
        "backbone": config["backbone"],
        "seed": config["seed"],
        "adapters": {whole: _card(entry, heads.get(entry.lineage) == whole) for whole, entry in entries.items()},
        "verified": [event["changed_bits"] for event in Ledger(folder.ledger).events("verified")][-1:],
    }


def _card(entry: Entry, is_head: bool) -> dict[str, Any]:
    step = entry.step
    return {
        "lineage": entry.lineage,
        "is_head": is_head,
        "for": f"{step.task.kind} on {step.region} from {'+'.join(step.modalities)}",
        "parts": list(step.adapter.parts),
        "view": asdict(step.view),
        "trained_at": entry.centers,
        "state_hash": entry.state_hash,
    }


def _files(folder: Path) -> list[str]:
    apart = {MANIFEST, SIGNATURE}
    found = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return [name for name in found if name not in apart]


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _signing_key(path: Path) -> ed25519.Ed25519PrivateKey:
    if not path.exists():
        made = ed25519.Ed25519PrivateKey.generate()
        write_bytes(path, made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        path.chmod(0o600)
    key = load_pem_private_key(path.read_bytes(), None)
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise BankError(f"{path} is no Ed25519 key; move it aside, and a new one is made.")
    return key
