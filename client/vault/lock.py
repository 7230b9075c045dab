"""One writer at a time, across processes: two runs may share a center, and a simulation's workers share its vault."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.errors import FedgraftError


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold the lock that belongs to a file of the vault; it frees itself when the process dies."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with path.with_name(f".{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def only_one(path: Path, *, otherwise: str) -> Iterator[None]:
    """The same without waiting. Raises FedgraftError with a sentence where another process holds it."""
    with path.open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FedgraftError(otherwise) from error
        yield


def is_held(path: Path) -> bool:
    """Whether another process holds the lock of `only_one`."""
    if not path.exists():
        return False
    with path.open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
