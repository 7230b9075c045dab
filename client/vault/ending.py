"""Where a chained file of the vault ended when it was last written, so that lines cut off its end are missed.

A hash chain shows a changed line and one taken out, but not that the last lines are gone: with them an erased patient
would train again, or two answers could differ by one. Beside the file stands how many lines it has and the last one's
hash, sealed. It is written after the line, so a process that dies in between leaves a file that says more than it needs
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

LINES, HASH = "lines", "hash"


def end_of(path: Path) -> Path:
    """The file beside it."""
    return path.with_suffix(".end")


def note_end(ledger: Ledger) -> None:
    """Write where the file ends now; hold `client.vault.lock.alone` of it meanwhile."""
    events = ledger.events()
    write_sealed(end_of(ledger.path), {LINES: len(events), HASH: events[-1]["hash"]})


def note_last(path: Path, digest: str) -> None:
    """The same of a file whose chain is not read, for the hash of the line that was added last."""
    write_sealed(end_of(path), {LINES: path.read_bytes().count(b"\n"), HASH: digest})


def known_end(path: Path) -> Mapping[str, Any]:
    """What is noted, read before the file itself; nothing of an earlier release's. Raises DamagedFile."""
    end = end_of(path)
    return read_sealed(end, remedy="restore it from a backup of the vault.") if end.exists() else {}


def check_end(path: Path, events: Sequence[Mapping[str, Any]], end: Mapping[str, Any]) -> None:
    """Raise LedgerError where the file lacks lines that it once had."""
    lines = int(end.get(LINES, 0))
    if lines and (len(events) < lines or events[lines - 1]["hash"] != end[HASH]):
        raise _cut(path, len(events), lines)


def check_uncut(path: Path) -> None:
    """The same of a file whose chain is not read: the line that is noted is there. Raises LedgerError, DamagedFile."""
    end = known_end(path)
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    known = int(end.get(LINES, 0))
    if known and (len(lines) < known or f'"hash":"{end[HASH]}"'.encode() not in lines[known - 1]):
        raise _cut(path, len(lines), known)


def set_aside(path: Path) -> str:
    """Keep a damaged file under another name, and forget where it ended; the new name, empty where it is not there."""
    end_of(path).unlink(missing_ok=True)
    if not path.exists():
        return ""
    aside = path.with_name(f"{path.stem}-damaged-{datetime.now(UTC):%Y%m%dT%H%M%S}{path.suffix}")
    return path.rename(aside).name


def _cut(path: Path, lines: int, known: int) -> LedgerError:
    return LedgerError(f"{path.name} has {lines} lines, and {end_of(path).name} beside it knows of {known}")
