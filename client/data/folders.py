"""The regular files below a folder, also behind links to folders, each real folder once.

`pathlib.Path.rglob` passes by linked folders without a word, and a named pipe would block whoever opens it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def files_below(root: Path) -> list[Path]:
    """Every regular file (or link to one), sorted by path."""
    return sorted(path for path in _walk(root) if path.is_file())


def _walk(root: Path) -> Iterator[Path]:
    seen: set[str] = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link that leads back
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        yield from (Path(folder) / name for name in names)
