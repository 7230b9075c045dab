"""Sums on disk: what centers said, kept with a digest, so that a damaged file is asked for again and never believed."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from common.files import write_bytes
from common.protocol.messages import Sums

DIGEST = "sha256"  # in the file's metadata; files of releases before it have none


def write_sums(path: Path, sums: Sums) -> None:
    """Write sums with their digest, atomically."""
    arrays = {name: np.array(value, order="C") for name, value in sums.items()}  # keeps a single number one
    write_bytes(path, save(arrays, {DIGEST: _digest(arrays)}))


def read_sums(path: Path) -> Sums | None:
    """Kept sums; None where there are none or they are not what was written."""
    try:
        with safe_open(path, "numpy") as file:
            known = (file.metadata() or {}).get(DIGEST)
            sums = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (OSError, SafetensorError):
        return None
    return sums if known in (None, _digest(sums)) else None


def _digest(sums: Sums) -> str:
    digest = hashlib.sha256()
    for name in sorted(sums):
        digest.update(f"{name}|{sums[name].dtype}|{sums[name].shape}|".encode() + sums[name].tobytes())
    return digest.hexdigest()
