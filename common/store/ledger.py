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
from typing import Any, BinaryIO

from common.errors import LedgerError
from common.files import naming

FORMAT = 1
GENESIS = "0" * 64


class Ledger:
    """An append-only, hash-chained event log in one file."""

    def __init__(self, path: Path):
        self.path = path
        self._events, self._last, self._torn_at, self._unended = _read(path)
        self._size = path.stat().st_size if path.exists() else 0

    def append(self, kind: str, event: dict[str, Any]) -> dict[str, Any]:
        """Add an event durably and return it as stored. Another process may append in between: lines never cross."""
        with naming(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        with naming(self.path), self.path.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            self.refresh()
            self._mend_last_line(file)
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
            self._events, self._last, self._torn_at, self._unended = _read(self.path)
            self._size = size

    def events(self, kind: str | None = None, **fields: Any) -> list[dict[str, Any]]:
        """Events of one kind whose fields equal the given ones, in order."""
        return [
            event
            for event in self._events
            if (kind is None or event["kind"] == kind) and all(event.get(k) == v for k, v in fields.items())
        ]

    def finished(self, step: str) -> bool:
        """Whether a step has been committed, or, where nothing is learned in it, was told."""
        return bool(self.events("step_finished", step=step) or self.events("statistics_told", step=step))

    def verify(self) -> int:
        """Re-read the file and check the whole chain; the number of events. Raises LedgerError."""
        return len(_read(self.path)[0])

    def _mend_last_line(self, file: BinaryIO) -> None:
        """Only a writer mends the file: a reader may be looking while another process appends."""
        if self._torn_at is not None:
            file.truncate(self._torn_at)
            file.write(self._unended)
            self._torn_at, self._unended = None, b""


def append_line(path: Path, kind: str, event: dict[str, Any]) -> str:
    """Add an event to a record of any length, of which the last line alone is read; the new line's hash.

    The whole chain is for whoever audits it: `Ledger.verify`. Lines never cross: the file is locked.

    Raises:
        LedgerError: the last line is not what was written.
    """
    return str(json.loads(_appended(path, kind, event, flush=True)[1])["hash"])


def append_unflushed(path: Path, kind: str, event: dict[str, Any]) -> tuple[int, bytes]:
    """The same without a flush: where the line begins, and the line. Who asks for it makes it durable."""
    return _appended(path, kind, event, flush=False)


def _appended(path: Path, kind: str, event: dict[str, Any], *, flush: bool) -> tuple[int, bytes]:
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with naming(path), path.open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        previous = _ended(file, path)
        body = {"format": FORMAT, "kind": kind, "time": _now(), "previous": previous, **event}
        line = _encode({**body, "hash": _hash(body)}, sort=False) + b"\n"
        at = file.seek(0, os.SEEK_END)
        file.write(line)
        file.flush()
        if flush:
            os.fsync(file.fileno())
    return at, line


def _ended(file: BinaryIO, path: Path) -> str:
    """The last line's hash, the file made to end with it: a line that was cut while it was written is dropped."""
    before, line = _last_two(file)
    if line.endswith(b"\n") or not line:
        return _own_hash(path, line) if line else GENESIS
    if _is_whole(line, previous=_own_hash(path, before) if before else GENESIS):
        file.write(b"\n")
        return str(json.loads(line)["hash"])
    file.truncate(file.seek(0, os.SEEK_END) - len(line))
    return _own_hash(path, before) if before else GENESIS


def _last_two(file: BinaryIO, chunk: int = 1 << 14) -> tuple[bytes, bytes]:
    """The last two lines of a file, with their ends; the last one may have none. Empty where there is none."""
    start = file.seek(0, os.SEEK_END)
    tail = b""
    while start > 0 and tail.count(b"\n") < 3:
        start -= (read := min(chunk, start))
        file.seek(start)
        tail = file.read(read) + tail
        chunk *= 2
    lines = tail.splitlines(keepends=True) if b"\n" in tail else [tail]
    return (lines[-2] if len(lines) > 1 else b""), lines[-1] if lines else b""


def _own_hash(path: Path, line: bytes) -> str:
    event = _event(path, -1, line)
    body = {key: value for key, value in event.items() if key != "hash"}
    if event.get("hash") != _hash(body):
        raise LedgerError(f"{path} ends in a line that was changed after it was written.")
    return str(event["hash"])


def _is_whole(line: bytes, *, previous: str) -> bool:
    """Whether a last line without its end is an event all the same."""
    try:
        event = json.loads(line)
    except ValueError:
        return False
    if not isinstance(event, dict) or event.get("format") != FORMAT or event.get("previous") != previous:
        return False
    return event.get("hash") == _hash({key: value for key, value in event.items() if key != "hash"})


def _read(path: Path) -> tuple[list[dict[str, Any]], str, int | None, bytes]:
    """Events, the last hash, the byte at which a last line without its end begins, and that line where it is whole.

    One that was cut was being written when the process died: its work is repeated.
    """
    events: list[dict[str, Any]] = []
    last = GENESIS
    content = _content(path)
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
    unended = torn + b"\n" if torn and _is_whole(torn, previous=last) else b""
    if unended:
        events.append(json.loads(torn))
        last = events[-1]["hash"]
    return events, last, len(content) - len(torn) if torn else None, unended


def _content(path: Path) -> bytes:
    if path.is_dir():
        raise LedgerError(f"{path} is a folder where a ledger is a file; move it away, or restore the ledger.")
    return path.read_bytes() if path.exists() else b""


def _event(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        event = json.loads(line)
    except ValueError as error:
        where = f"line {number}" if number > 0 else "the last line"
        raise LedgerError(f"{path} {where} is not JSON; restore the file from a backup.") from error
    if not isinstance(event, dict):
        raise LedgerError(f"{path} line {number} is no event; restore the file from a backup.")
    return event


def _encode(value: dict[str, Any], *, sort: bool = True) -> bytes:
    return json.dumps(value, sort_keys=sort, separators=(",", ":"), allow_nan=False).encode()


def _hash(body: dict[str, Any]) -> str:
    return hashlib.sha256(_encode(body)).hexdigest()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
