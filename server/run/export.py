"""The bank as a folder that explains itself: adapters, what they are for, and a signature over every file.

A hospital predicts from it without any server; all else that it needs is the frozen model of the same digest.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from omegaconf import OmegaConf

from common.config.load import from_json
from common.config.run import BackboneSpec
from common.errors import BankError
from common.files import write_bytes, write_json
from common.materials.licences import licence_of
from common.store.bank import AdapterBank, Entry
from common.store.bases import Bases
from common.store.exported import FORMAT, MANIFEST, PUBLIC_KEY, SIGNATURE, file_digest, fingerprint, signed_files
from common.store.ledger import Ledger
from common.store.sealed import write_sealed
from common.store.tested import in_words, known_by_key, score_in, scores_by_key
from server.run.folder import RunFolder

READ_ME = """# Adapters of the run {run}

Use one on your own images, without any server:

    python -m client predict --bank {folder} …

- `bank/` holds the adapters, each in a folder named by the hash of its content; `bank/heads.json` says which one of
  each lineage is in use. Tensors are safetensors files; `entry.json` holds the step that trained them.
- `manifest.json` says what each adapter is for and gives the SHA-256 of every file; `manifest.sig` is its Ed25519
  signature by the key in `signer.pub`. Compare that key's fingerprint with the coordinator's: {fingerprint}
- The frozen model is not here. Its digest is {base}. What later steps stand on grew from it: `bank/bases/` says by
  which adapters, and `predict` merges them.
- {licence}

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
    for whole in sorted({*entries, *_stages(bank, entries.values(), out)}):
        bank.get(whole)  # checked against its hash before it is signed
        shutil.copytree(folder.bank / whole, out / "bank" / whole)
    write_sealed(out / "bank" / "heads.json", {lineage: head for lineage, head in heads.items() if head in entries})
    signer = _signing_key(key)
    public = signer.public_key()
    (out / PUBLIC_KEY).write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    manifest = _manifest(folder, started[0], entries, heads)
    text = READ_ME.format(
        run=started[0]["run"],
        folder=out.name,
        fingerprint=fingerprint(public),
        base=started[0]["base"],
        licence=manifest["licence"]["sentence"],
        lines="\n".join(_line(card) for card in manifest["adapters"].values()),
    )
    write_bytes(out / "README.md", text.encode())
    manifest["files"] = {name: file_digest(out / name) for name in signed_files(out)}
    write_json(out / MANIFEST, manifest)
    write_bytes(out / SIGNATURE, signer.sign((out / MANIFEST).read_bytes()))
    return out / MANIFEST


def _stages(bank: AdapterBank, entries: Iterable[Entry], out: Path) -> set[str]:
    """Keys of the entries that the adapters' bases are made of; what each base is made of is written to the export."""
    bases, found = Bases(bank), set()
    for digest in {digest for entry in entries for digest in bases.chain(entry.base)}:
        ref = bases.ref(digest)
        assert ref is not None
        Bases(AdapterBank(out / "bank")).keep(digest, ref)
        found |= {*ref.merged}
    return found


def _manifest(
    folder: RunFolder, started: dict[str, Any], entries: dict[str, Entry], heads: dict[str, str]
) -> dict[str, Any]:
    config: Any = OmegaConf.to_container(OmegaConf.load(folder.config))
    events = Ledger(folder.ledger).events()
    known, tested = known_by_key(events), scores_by_key(events)
    licence = licence_of(from_json(BackboneSpec, json.dumps(config["backbone"])))
    return {
        "format": FORMAT,
        "run": started["run"],
        "exported": datetime.now(UTC).isoformat(timespec="seconds"),
        "base": started["base"],
        "backbone": config["backbone"],
        "licence": {"weights": licence.name, "spdx": licence.spdx, "sentence": licence.sentence},
        "seed": config["seed"],
        "adapters": {
            whole: {
                **_card(entry, heads.get(entry.lineage) == whole),
                "known": known.get(whole, {}),
                "tested": tested.get(whole),
            }
            for whole, entry in entries.items()
        },
        "verified": [event["changed_bits"] for event in events if event["kind"] == "verified"][-1:],
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
        "base": entry.base,
    }


def _line(card: dict[str, Any]) -> str:
    modes = list((card["tested"] or {}).get("modes", {})) or [""]
    scores = "; ".join(in_words(score_in(card["tested"], mode)) for mode in modes)
    return f"- {card['lineage']}: {card['for']}; {scores}"


def _signing_key(path: Path) -> ed25519.Ed25519PrivateKey:
    if not path.exists():
        made = ed25519.Ed25519PrivateKey.generate()
        write_bytes(path, made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        path.chmod(0o600)
    key = load_pem_private_key(path.read_bytes(), None)
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise BankError(f"{path} is no Ed25519 key; move it aside, and a new one is made.")
    return key
