"""VolumeCache: prepared tensors on disk under the hash of the files they came from and of how they were made.

A client process may live for one message, so the cache is a folder, not a dict. Entries carry a digest of their own
tensors: a damaged one is treated as absent and written anew.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from common.backbones.base import tensors_digest
from common.errors import DataError

log = logging.getLogger("fedgraft.center")

_HELD: dict[Path, int] = {}  # bytes of entries by folder, as this process knows them
_TOLD: set[Path] = set()  # folders that this process has said cannot be written


class VolumeCache:
    """Tensors by content key; safe for several processes on one folder (entries appear whole, by rename)."""

    def __init__(self, folder: Path, *, most_bytes: float = math.inf):
        """Args:
        most_bytes: of entries; beyond it those that were not read for longest are dropped.
        """
        self.folder, self.most_bytes = Path(folder), most_bytes

    def key(self, files: Mapping[str, Path], *, recipe: str) -> str:
        """SHA-256 over the files' contents by role and the recipe (settings and code version)."""
        digests = {role: self._file_digest(path) for role, path in files.items()}
        return hashlib.sha256(json.dumps([digests, recipe], sort_keys=True).encode()).hexdigest()

    def get(self, key: str) -> dict[str, Tensor] | None:
        """The tensors of an entry, or None where it is absent or damaged."""
        try:
            with suppress(OSError):  # a folder that may only be read
                os.utime(self._entry(key))  # the last to be dropped
            with safe_open(str(self._entry(key)), framework="pt") as stored:
                tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
                digest = (stored.metadata() or {}).get("digest")
        except (OSError, SafetensorError):
            return None
        return tensors if digest == tensors_digest(tensors) else None

    def put(self, key: str, tensors: Mapping[str, Tensor]) -> None:
        """Write an entry; a reader sees all of it or none of it."""
        plain = {name: tensor.contiguous() for name, tensor in tensors.items()}
        content = save(plain, metadata={"digest": tensors_digest(plain)})
        self._make_room(len(content))
        self._write(self._entry(key), content)

    def _make_room(self, coming: int) -> None:
        """Drop the entries that were not read for longest, down to four fifths of the most that may lie here."""
        if math.isinf(self.most_bytes):
            return
        if self.folder not in _HELD:
            _HELD[self.folder] = sum(size for _, size, _ in self._entries())
        _HELD[self.folder] += coming
        if _HELD[self.folder] <= self.most_bytes:
            return
        entries = sorted(self._entries(), key=lambda entry: entry[0])
        held = coming + sum(size for _, size, _ in entries)
        for _, size, path in entries:
            if held <= 0.8 * self.most_bytes:
                break
            path.unlink(missing_ok=True)
            held -= size
        _HELD[self.folder] = held

    def _entries(self) -> Iterator[tuple[float, int, Path]]:
        for path in self.folder.glob("[0-9a-f][0-9a-f]/*.safetensors"):
            with suppress(OSError):
                stat = path.stat()
                yield stat.st_mtime, stat.st_size, path

    def _entry(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.safetensors"

    def _file_digest(self, path: Path) -> str:
        """SHA-256 of a file, remembered on disk for its path, size and modification time."""
        try:
            stat = path.stat()
            state = [str(path.resolve()), stat.st_size, stat.st_mtime_ns]
            note = self.folder / "digests" / f"{hashlib.sha256(json.dumps(state).encode()).hexdigest()}.txt"
            known = note.read_bytes() if note.is_file() else b""
            if known[:64] and known == _noted(known[:64].decode(errors="replace"), state):
                return known[:64].decode()
            with path.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise DataError(f"An image file cannot be opened ({type(error).__name__}); copy it again.") from error
        self._write(note, _noted(digest, state))
        return digest

    def _write(self, path: Path, content: bytes) -> None:
        """Write an entry or a note. A full or read-only disk costs time, not work: it is prepared again next time."""
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
            if self.folder not in _TOLD:
                _TOLD.add(self.folder)
                log.warning(
                    "The cache folder '%s' cannot be written (%s): volumes are prepared anew for every message until "
                    "there is space, or center.yaml names another cache.", self.folder, error.strerror,
                )  # fmt: skip


def _noted(digest: str, state: list[object]) -> bytes:
    """A file's digest with one of its own, so that a damaged note is made again and never believed."""
    return f"{digest} {hashlib.sha256(json.dumps([digest, state]).encode()).hexdigest()[:16]}".encode()
