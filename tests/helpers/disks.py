"""Disks that are full or read-only, below a folder, for as long as a test wants."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def refusing(folder: Path, reason: int = errno.ENOSPC) -> Iterator[None]:
    """Nothing new can be written below ``folder``: neither a file beside its place, nor a line made durable."""
    make, sync = tempfile.mkstemp, os.fsync

    def refuse(place: str) -> None:
        if Path(place).resolve().is_relative_to(folder.resolve()):
            raise OSError(reason, os.strerror(reason), place)

    def mkstemp(*arguments, **options):
        refuse(str(options.get("dir") or tempfile.gettempdir()))
        return make(*arguments, **options)

    def fsync(handle):
        refuse(str(Path(f"/proc/self/fd/{handle}").readlink()))
        return sync(handle)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "mkstemp", mkstemp)
        patch.setattr(os, "fsync", fsync)
        yield
