"""Group commit: lines of several centers' records, made durable by one flush where all of them live in one process.

A line must be on disk before anybody looks at the reply that it tells of. Where the server is the same process, that
is the end of a phase: until then each line is written to its own record and kept for one journal, whose single flush
makes all of them durable. A record that a power failure cut is completed from the journal at the next start. Only what
left is grouped, never the privacy account, and never at a hospital, which is one center by itself.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from common.errors import LedgerError
from common.files import naming
from common.store.ledger import append_unflushed

MOST_BYTES = 1 << 20  # of a journal, before the records themselves are flushed and it begins anew


class Group:
    """Lines that become durable together.

    Args:
        path: of the journal; one that is there is recovered first.
    """

    def __init__(self, path: Path):
        self.path = path
        self._open: list[dict[str, Any]] = []
        self._records: set[Path] = set()
        recover(path)

    def append(self, record: Path, kind: str, event: dict[str, Any]) -> None:
        """Add a line to a record; durable after the next `commit`. Raises as `common.store.ledger.append_line` does."""
        at, line = append_unflushed(record, kind, event)
        self._open.append({"record": str(record), "at": at, "line": line.decode()})
        self._records.add(record)

    def commit(self) -> None:
        """Make every line durable that was added since the last time, by one flush. Raises OSError."""
        if not self._open:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with naming(self.path), self.path.open("ab") as journal:
            journal.write(b"".join(json.dumps(entry).encode() + b"\n" for entry in self._open))
            journal.flush()
            os.fsync(journal.fileno())
            size = journal.tell()
        self._open = []
        if size > MOST_BYTES:
            self.close()

    def close(self) -> None:
        """Flush the records themselves; the journal is then not needed any more."""
        _flush(self._records)
        self._records.clear()
        self.path.unlink(missing_ok=True)


def recover(path: Path) -> int:
    """Complete records that lack what a journal holds, then drop it; how many lines were missing.

    A record that was moved aside, or says something else where a line should stand, is left to whoever audits it.
    """
    if not path.exists():
        return 0
    entries = _entries(path)
    missing = sum(_completed(Path(entry["record"]), int(entry["at"]), entry["line"].encode()) for entry in entries)
    _flush(Path(entry["record"]) for entry in entries)
    path.unlink()
    return missing


def _flush(records: Iterable[Path]) -> None:
    for record in sorted(set(records)):
        if record.exists():
            with record.open("ab") as file:
                os.fsync(file.fileno())


def _entries(path: Path) -> list[dict[str, Any]]:
    """What a journal holds; a last line that was cut was never committed."""
    whole, _, _ = path.read_bytes().rpartition(b"\n")
    try:
        return [json.loads(line) for line in whole.split(b"\n") if line]
    except ValueError as error:
        raise LedgerError(f"{path} is damaged; restore it, or move it aside and audit the centers' records.") from error


def _completed(record: Path, at: int, line: bytes) -> bool:
    """Whether the line had to be written anew: the record ends at it, or within it."""
    size = record.stat().st_size if record.exists() else 0
    if not at <= size < at + len(line):
        return False
    record.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with record.open("r+b" if record.exists() else "w+b") as file:
        file.seek(at)
        if not line.startswith(file.read()):
            return False
        file.truncate(at)
        file.seek(at)
        file.write(line)
    return True
