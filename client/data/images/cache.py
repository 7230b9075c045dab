"""VolumeCache: prepared tensors on disk under the hash of the files they came from and of how they were made.

A client process may live for one message, so the cache is a folder, not a dict. Entries carry a digest of their own
tensors: a damaged one is treated as absent and written anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from common.backbones.base import tensors_digest
from common.errors import DataError


class VolumeCache:
    """Tensors by content key; safe for several processes on one folder (entries appear whole, by rename)."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)

    def key(self, files: Mapping[str, Path], *, recipe: str) -> str:
        """SHA-256 over the files' contents by role and the recipe (settings and code version)."""
        digests = {role: self._file_digest(path) for role, path in files.items()}
        return hashlib.sha256(json.dumps([digests, recipe], sort_keys=True).encode()).hexdigest()

    def get(self, key: str) -> dict[str, Tensor] | None:
        """The tensors of an entry, or None where it is absent or damaged."""
        try:
            with safe_open(str(self._entry(key)), framework="pt") as stored:
                tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
                digest = (stored.metadata() or {}).get("digest")
        except (OSError, SafetensorError):
            return None
        return tensors if digest == tensors_digest(tensors) else None

    def put(self, key: str, tensors: Mapping[str, Tensor]) -> None:
        """Write an entry; a reader sees all of it or none of it."""
        plain = {name: tensor.contiguous() for name, tensor in tensors.items()}
        self._write(self._entry(key), save(plain, metadata={"digest": tensors_digest(plain)}))

    def _entry(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.safetensors"

    def _file_digest(self, path: Path) -> str:
        """SHA-256 of a file, remembered on disk for its path, size and modification time."""
        try:
            stat = path.stat()
            state = [str(path.resolve()), stat.st_size, stat.st_mtime_ns]
            note = self.folder / "digests" / f"{hashlib.sha256(json.dumps(state).encode()).hexdigest()}.txt"
            known = note.read_text() if note.is_file() else ""
            if len(known) == 64:
                return known
            with path.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise DataError(f"An image file cannot be opened ({type(error).__name__}); copy it again.") from error
        self._write(note, digest.encode())
        return digest

    def _write(self, path: Path, content: bytes) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, partial = tempfile.mkstemp(dir=path.parent, prefix=".partial-")
            try:
                with os.fdopen(handle, "wb") as stream:
                    stream.write(content)
                Path(partial).replace(path)
            except BaseException:
                Path(partial).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise DataError(
                f"The cache folder '{self.folder}' cannot be written ({error.strerror}); free space or name another."
            ) from error
