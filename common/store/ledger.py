"""Ledger: what happened, one JSON line each, every line carrying the hash of the line before it.

The ledger is the run's memory: a killed run replays it and skips what is finished; the report reads nothing else
but it and the bank. Times are for people; nothing is computed from them.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from common.errors import LedgerError
from common.files import naming

FORMAT = 1
GENESIS = "0" * 64


class Ledger:
    """An append-only, hash-chained event log in one file."""

    def __init__(self, path: Path):
        self.path = path
        self._events, self._last, self._torn_at = _read(path)
        self._size = path.stat().st_size if path.exists() else 0

    def append(self, kind: str, event: dict[str, Any]) -> dict[str, Any]:
        """Add an event durably and return it as stored. Another process may append in between: lines never cross."""
        with naming(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        with naming(self.path), self.path.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            self.refresh()
            self._drop_torn_line()
            body = {"format": FORMAT, "kind": kind, "time": _now(), "previous": self._last, **event}
            digest = _hash(body)
            line = _encode({**body, "hash": digest}, sort=False)  # as written, so that steps keep their order
            file.write(line + b"\n")
            file.flush()
            os.fsync(file.fileno())
            self._size = file.tell()
        self._events.append({**json.loads(line)})
        self._last = digest
        return self._events[-1]

    def refresh(self) -> None:
        """Take in what another process appended: a person who releases a center while the run goes on."""
        size = self.path.stat().st_size if self.path.exists() else 0
        if size != self._size:
            self._events, self._last, self._torn_at = _read(self.path)
            self._size = size

    def events(self, kind: str | None = None, **fields: Any) -> list[dict[str, Any]]:
        """Events of one kind whose fields equal the given ones, in order."""
        return [
            event
            for event in self._events
            if (kind is None or event["kind"] == kind) and all(event.get(k) == v for k, v in fields.items())
        ]

    def finished(self, step: str) -> bool:
        """Whether a step has been committed."""
        return bool(self.events("step_finished", step=step))

    def verify(self) -> int:
        """Re-read the file and check the whole chain; the number of events. Raises LedgerError."""
        events, _, _ = _read(self.path)
        return len(events)

    def _drop_torn_line(self) -> None:
        """Only a writer mends the file: a reader may be looking while another process appends."""
        if self._torn_at is not None:
            with self.path.open("r+b") as file:
                file.truncate(self._torn_at)
            self._torn_at = None


def _read(path: Path) -> tuple[list[dict[str, Any]], str, int | None]:
    """Events, the last hash, and the byte at which a torn last line begins, if there is one.

    A line without its end was being written when the process died: its work is repeated.
    """
    events: list[dict[str, Any]] = []
    last = GENESIS
    content = path.read_bytes() if path.exists() else b""
    whole, _, torn = content.rpartition(b"\n")
    for number, line in enumerate(whole.split(b"\n") if whole else [], start=1):
        event = _event(path, number, line)
        body = {key: value for key, value in event.items() if key != "hash"}
        if event.get("previous") != last or event.get("hash") != _hash(body):
            raise LedgerError(
                f"{path} line {number} breaks the hash chain: the ledger was changed after it was written. "
                "Restore it from a backup, or start a new run folder."
            )
        if event.get("format") != FORMAT:
            raise LedgerError(f"{path} line {number} has format {event.get('format')}; this release reads {FORMAT}.")
        events.append(event)
        last = event["hash"]
    return events, last, len(content) - len(torn) if torn else None


def _event(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        event = json.loads(line)
    except ValueError as error:
        raise LedgerError(f"{path} line {number} is not JSON; restore the file from a backup.") from error
    if not isinstance(event, dict):
        raise LedgerError(f"{path} line {number} is no event; restore the file from a backup.")
    return event


def _encode(value: dict[str, Any], *, sort: bool = True) -> bytes:
    return json.dumps(value, sort_keys=sort, separators=(",", ":"), allow_nan=False).encode()


def _hash(body: dict[str, Any]) -> str:
    return hashlib.sha256(_encode(body)).hexdigest()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
