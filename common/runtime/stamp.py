"""Whether files changed: one digest of what the file system says of them, without reading any."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

Identity = tuple[int, int] | None  # of a folder, whatever its name
MOST_FILES = 50_000  # more than a look at each of them may cost before every message


def stamp(
    paths: Sequence[Path | str],
    *,
    without: Collection[Path | str] = (),
    suffixes: tuple[str, ...] = ("",),
    most: int = MOST_FILES,
) -> str | None:
    """A digest that changes with any file's place, size, time or identity; None where there are more than ``most``.

    Args:
        paths: files, and folders whose files are all meant, however deep; what is not there counts as absent.
        without: folders that are left out where they lie below one of the paths.
        suffixes: of a folder's files, only those whose names end so.
    """
    left_out = {_identity(Path(path)) for path in without}
    seen = hashlib.sha256()
    for number, file in enumerate(_files(map(Path, paths), left_out, suffixes)):
        if number >= most:
            return None
        seen.update(_said_of(file))
    return seen.hexdigest()


def _files(paths: Iterable[Path], left_out: set[Identity], suffixes: tuple[str, ...]) -> Iterator[str]:
    for path in paths:
        if path.is_dir():
            yield from _below(path, left_out, suffixes)
        else:
            yield str(path)


def _below(folder: Path | os.DirEntry[str], left_out: set[Identity], suffixes: tuple[str, ...]) -> Iterator[str]:
    own = _identity(folder)
    if own is None or own in left_out:
        return
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError:
        entries = []
    for entry in entries:
        if entry.is_dir():
            yield from _below(entry, left_out | {own}, suffixes)  # a link back is not entered again
        elif entry.name.endswith(suffixes):
            yield entry.path


def _identity(folder: Path | os.DirEntry[str]) -> Identity:
    try:
        found = folder.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _said_of(file: str) -> bytes:
    try:
        found = os.stat(file)  # noqa: PTH116  (a Path for each of many thousand files takes longer than the look)
    except OSError:
        return f"{file}|absent\n".encode()
    return f"{file}|{found.st_ino}|{found.st_size}|{found.st_mtime_ns}|{found.st_ctime_ns}\n".encode()
