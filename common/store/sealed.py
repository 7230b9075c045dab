"""Sealed JSON: a value on disk with the SHA-256 of its own text, so that a cut or changed file is never believed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from common.errors import FedgraftError
from common.files import write_json

SEAL, VALUE = "sha256", "value"


class DamagedFile(FedgraftError):
    """A file that is not what was written: the sentence names it, the caller says what to do."""

    code = "damaged"


def write_sealed(path: Path, value: Any) -> None:
    """Write a value with its hash, atomically."""
    write_json(path, {SEAL: _digest(value), VALUE: value})


def read_sealed(path: Path, *, remedy: str, unsealed: bool = False) -> Any:
    """The value of a file that `write_sealed` wrote.

    Args:
        remedy: what to do about a damaged file, as the end of a sentence.
        unsealed: take a file of an earlier release, which holds the bare value.

    Raises:
        DamagedFile: the file cannot be read, is no JSON, or does not have its hash.
    """
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedFile(f"{path} cannot be read ({type(error).__name__}); {remedy}") from error
    if isinstance(found, dict) and set(found) == {SEAL, VALUE}:
        if _digest(found[VALUE]) == found[SEAL]:
            return found[VALUE]
    elif unsealed:
        return found
    raise DamagedFile(f"{path} does not have the hash that it was written with; {remedy}")


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
