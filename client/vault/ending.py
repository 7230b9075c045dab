"""Chained files of the vault, and where each ended when it was last written, so that lines cut off its end are missed.

A hash chain shows a changed line and one taken out, but not that the last lines are gone: with them an erased patient
would train again, or two answers could differ by one. Beside the file stands how long it is and its last line's hash,
sealed. It is written after the line, so a process that dies in between leaves a file that says more than it needs
to; nobody who may not write there can tell the two apart from a whole vault that was put back to an earlier state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from common.errors import LedgerError
from common.store.ledger import Ledger
from common.store.sealed import read_sealed, write_sealed

BEGUN = "begun"
LINES, BYTES, HASH = "lines", "bytes", "hash"
CHUNK = 1 << 14
Version = tuple[Path, int, int, tuple[tuple[str, Any], ...]]  # path, size, time of the last change, note of the end


def end_of(path: Path) -> Path:
    """The file beside it."""
    return path.with_suffix(".end")


def note_end(ledger: Ledger) -> None:
    """Write where the file ends now; hold `client.vault.lock.alone` of it meanwhile."""
    events, size = ledger.events(), ledger.path.stat().st_size
    write_sealed(end_of(ledger.path), {LINES: len(events), BYTES: size, HASH: events[-1]["hash"]})


def note_last(path: Path, digest: str) -> None:
    """The same of a file of any length, whose chain is not read, for the hash of the line that was added last."""
    write_sealed(end_of(path), {BYTES: path.stat().st_size, HASH: digest})


def append_noted(path: Path, kind: str, event: Mapping[str, Any], *, first: Mapping[str, Any]) -> None:
    """Add a line to a chained file and note where it ends now; hold `client.vault.lock.alone` of it meanwhile.

    Args:
        first: what the line says that the file begins with, where it has none yet.
    """
    fresh = not path.exists()
    ledger = Ledger(path)
    if not ledger.events(BEGUN):
        ledger.append(BEGUN, dict(first))
    if fresh:
        path.chmod(0o600)
    ledger.append(kind, dict(event))
    note_end(ledger)


def version_of(path: Path) -> Version | None:
    """What decides whether a chained file is read again; None where none was begun.

    Raises:
        FedgraftError, AttributeError: the note is damaged.
        FileNotFoundError: the note is there, and the file is gone.
    """
    end = tuple(sorted(known_end(path).items()))
    if not path.exists():
        if end:
            raise FileNotFoundError(f"it is gone, and {end_of(path).name} is there")
        return None
    stat = path.stat()
    return path, stat.st_size, stat.st_mtime_ns, end


def known_end(path: Path) -> Mapping[str, Any]:
    """What is noted, read before the file itself; nothing of an earlier release's. Raises DamagedFile."""
    end = end_of(path)
    return read_sealed(end, remedy="restore it from a backup of the vault.") if end.exists() else {}


def check_end(path: Path, events: Sequence[Mapping[str, Any]], end: Mapping[str, Any]) -> None:
    """Raise LedgerError where the file lacks lines that it once had: the noted one is not in its chain."""
    if end and all(event["hash"] != end[HASH] for event in reversed(events)):
        raise _cut(path, f"{len(events)} lines", str(end.get(LINES, "more")))


def check_uncut(path: Path) -> None:
    """The same of a file whose chain is not read: the line that is noted is there. Raises LedgerError, DamagedFile."""
    end = known_end(path)
    known, size = int(end.get(BYTES, 0)), path.stat().st_size if path.exists() else 0
    if known and (size < known or f'"hash":"{end[HASH]}"'.encode() not in _line_until(path, known)):
        raise _cut(path, f"{size} bytes", f"{known}")


def _line_until(path: Path, end: int) -> bytes:
    """The line of a file that ends at a byte, however long it is."""
    with path.open("rb") as file:
        start, found = end, b""
        while start > 0 and b"\n" not in found[:-1]:
            step = min(CHUNK, start)
            start -= step
            file.seek(start)
            found = file.read(step) + found
    return found[:-1].rpartition(b"\n")[2]


def set_aside(path: Path) -> str:
    """Keep a damaged file under another name, and forget where it ended; the new name, empty where it is not there."""
    end_of(path).unlink(missing_ok=True)
    if not path.exists():
        return ""
    aside = path.with_name(f"{path.stem}-damaged-{datetime.now(UTC):%Y%m%dT%H%M%S}{path.suffix}")
    return path.rename(aside).name


def _cut(path: Path, there: str, known: str) -> LedgerError:
    return LedgerError(f"{path.name} has {there}, and {end_of(path).name} beside it knows of {known}")
