"""Tidying: what is older than the hospital's retention, found by place, so that nothing else can ever be meant.

Only these places are looked into: the cache's own entries, the node's log files, steps' shelves in the vault and the
secrets of secure sums that never ended. What proves something (the account of privacy, what left, what was released
and asked, the split, the erased patients, which runs this center took part in) lies elsewhere in the vault.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from client.retention.declared import Retention
from common.files import write_bytes

DAY_S = 86_400.0
CACHE, LOG, STEP, SUM = "prepared volumes", "log lines", "steps' shelves", "unfinished secure sums"
CACHED = ("[0-9a-f][0-9a-f]/*.safetensors", "digests/*.txt")
WRITTEN = re.compile(rb"(\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d)")
UNFINISHED = "masking/open-*.json"


@dataclass(frozen=True)
class Old:
    """Something that is older than its retention.

    Args:
        cut: of a log, the byte where what stays begins; None where the whole thing goes.
    """

    kind: str
    path: Path
    size: int
    cut: int | None = None


def old_things(retention: Retention, *, cache: Path, vault: Path, home: Path, now: float | None = None) -> list[Old]:
    """What is older than the retention says, in the order of kind and path.

    Args:
        vault: of this center.
        home: the node's folder with its logs.
        now: seconds since 1970.
    """
    at = time.time() if now is None else now
    found: list[Old] = []
    if retention.cache_days is not None:
        before = at - retention.cache_days * DAY_S
        entries = [path for pattern in CACHED for path in cache.glob(pattern)]
        found += [Old(CACHE, path, size) for path, size in _before(entries, before)]
    if retention.log_days is not None:
        found += _logs(home, at - retention.log_days * DAY_S)
    if retention.step_days is not None:
        before = at - retention.step_days * DAY_S
        found += _shelves(vault / "steps", before)
        found += [Old(SUM, path, size) for path, size in _before(vault.glob(UNFINISHED), before)]
    return sorted(found, key=lambda one: (one.kind, str(one.path)))


def remove(found: Iterable[Old]) -> int:
    """Remove it; the bytes that are free again. What is gone meanwhile is passed over."""
    freed = 0
    for one in found:
        with suppress(FileNotFoundError):
            if one.cut is not None:
                write_bytes(one.path, one.path.read_bytes()[one.cut :])
            elif one.kind == STEP:
                shutil.rmtree(one.path)
            else:
                one.path.unlink()
            freed += one.size
    return freed


def _before(paths: Iterable[Path], before: float) -> Iterator[tuple[Path, int]]:
    """Files that were not written (of the cache: not read) since, with their sizes."""
    for path in paths:
        with suppress(FileNotFoundError):
            stat = path.stat()
            if stat.st_mtime < before:
                yield path, stat.st_size


def _shelves(folder: Path, before: float) -> Iterator[Old]:
    """Steps' folders in which nothing is newer."""
    for shelf in sorted(path for path in folder.glob("*/") if not path.is_symlink()):
        with suppress(FileNotFoundError):  # a node that works removes older rounds meanwhile
            stats = [path.stat() for path in shelf.rglob("*") if path.is_file()]
            newest = max((stat.st_mtime for stat in stats), default=shelf.stat().st_mtime)
            if newest < before:
                yield Old(STEP, shelf, sum(stat.st_size for stat in stats))


def _logs(home: Path, before: float) -> Iterator[Old]:
    """Log files that end before, and the beginnings of those that go on."""
    for path in sorted([*home.glob("*.log"), *home.glob("*.log.[0-9]*")]):
        with suppress(FileNotFoundError):
            stat = path.stat()
            if stat.st_mtime < before:
                yield Old(LOG, path, stat.st_size)
            elif cut := _first_line_since(path, before):
                yield Old(LOG, path, cut, cut=cut)


def _first_line_since(path: Path, since: float) -> int:
    """The byte at which the first line begins that says a time after; 0 where that is the first one, or none says a
    time: what belongs to a line (a traceback) goes with it."""
    at = 0
    with path.open("rb") as lines:
        for line in lines:
            said = WRITTEN.match(line)
            if said and datetime.fromisoformat(said.group(1).decode()).timestamp() >= since:
                return at
            at += len(line)
    return 0
