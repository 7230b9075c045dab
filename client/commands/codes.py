"""Codes of patients: CENTER-001, CENTER-002, … instead of hospital numbers; the table of both stays in the vault.

New patients are numbered in the order of a keyed hash whose secret is in the vault too, so that a code tells neither
the order of admission nor of names. A patient who has a code keeps it. A code that was given is never given again, and
an erased patient, of whom a keyed hash of the number is left, never gets another.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from common.errors import DataError
from common.files import write_json

FILE = "codes.json"


def codes_for(vault: Path, center: str, patients: Iterable[str]) -> dict[str, str]:
    """A code for every hospital number, old ones as they were; the table is written before this returns.

    Erased patients get none: they are not in the answer.

    Raises:
        DataError: the table is damaged: making it anew would give old patients new codes.
    """
    table = _read(vault)
    known: dict[str, str] = table["codes"]
    key = bytes.fromhex(table["secret"])
    asked = {patient for patient in patients if _hashed(key, patient).hex() not in table["erased"]}
    new = sorted(asked - set(known), key=lambda patient: _hashed(key, patient))
    for number, patient in enumerate(new, start=table["last"] + 1):
        known[patient] = f"{center}-{number:03d}"
    table["last"] += len(new)
    _write(vault, table)
    return {patient: known[patient] for patient in sorted(asked)}


def known_codes(vault: Path) -> dict[str, str]:
    """The code of every patient who has one, of this export and of earlier ones. Raises DataError as `codes_for`."""
    return dict(_read(vault)["codes"])


def forget_code(vault: Path, code: str) -> int:
    """Remove a code's entry for good; how many were there (0 or 1)."""
    if not (vault / FILE).exists():
        return 0
    table = _read(vault)
    kept = {patient: known for patient, known in table["codes"].items() if known != code}
    gone = [_hashed(bytes.fromhex(table["secret"]), patient).hex() for patient in set(table["codes"]) - set(kept)]
    _write(vault, {**table, "codes": kept, "erased": [*table["erased"], *gone]})
    return len(gone)


def _hashed(key: bytes, patient: str) -> bytes:
    return hmac.new(key, patient.encode(), hashlib.sha256).digest()


def _read(vault: Path) -> dict[str, Any]:
    path = vault / FILE
    if not path.exists():
        return {"secret": secrets.token_hex(16), "last": 0, "codes": {}, "erased": []}
    try:
        table = json.loads(path.read_text())
        erased = [str(hashed) for hashed in table.get("erased", [])]
        return {
            "secret": str(table["secret"]),
            "last": int(table["last"]),
            "codes": dict(table["codes"]),
            "erased": erased,
        }
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"The table of patients' codes, {path}, cannot be read ({type(error).__name__}); restore it from a backup "
            "of the vault: made anew it would give the same patients other codes."
        ) from error


def _write(vault: Path, table: dict[str, Any]) -> None:
    vault.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_json(vault / FILE, table)
    (vault / FILE).chmod(0o600)
