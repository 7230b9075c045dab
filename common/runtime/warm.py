"""A warm parent: a process that has loaded something, and is forked for every process that is to find it loaded.

It is a fork of a fork server, which has the imports, and a fork server itself once it has loaded what it was told to.
Its forks share its memory until they write to it. A fork has only the thread that made it, so that a parent with a
pool of threads would hang its children: one that ends up with more than one thread says so and serves nobody.
"""

from __future__ import annotations

import gc
import io
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe, context, popen_forkserver, reduction, resource_tracker, spawn, util
from multiprocessing import connection as connections
from multiprocessing import forkserver as servers
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")  # read where a library is loaded


@dataclass(frozen=True)
class Place:
    """Where a warm parent takes requests; handed to the processes that may fork it."""

    address: str
    alive: Connection  # the parent ends when nobody holds it any more


class WarmParent:
    """A warm parent as the process sees it that started it."""

    def __init__(self, process: BaseProcess, place: Place, told: Connection):
        self.process, self.place, self._told = process, place, told
        self._said: str | None = None

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended."""
        return self.process.exitcode is None

    def problem(self, wait_s: float = 0.0) -> str | None:
        """Why it serves nobody, as a sentence; empty once it serves; None while it still loads."""
        if self._said is None and self._told.poll(wait_s):
            try:
                self._said = self._told.recv_bytes().decode()
            except (EOFError, OSError):
                self._said = "It ended while it loaded."
        return self._said

    def end(self) -> None:
        """End it now; what was forked from it goes on."""
        self.process.kill()
        self.process.join()
        for end in (self.place.alive, self._told):
            end.close()
        with suppress(OSError):
            Path(self.place.address).unlink()


def start_warm(processes: Any, load: Callable[..., None], *arguments: object) -> WarmParent:
    """Start a warm parent.

    Args:
        processes: a multiprocessing context that forks what has the imports: a fork server's, or a warm parent's
            own, to load more on top of what that one has.
        load: called with the arguments before it serves; starts no thread.
    """
    listener = socket.socket(socket.AF_UNIX)
    address = connections.arbitrary_address("AF_UNIX")  # type: ignore[attr-defined]
    listener.bind(address)
    Path(address).chmod(0o600)
    listener.listen()
    (ended, alive), (told, tells) = Pipe(duplex=False), Pipe(duplex=False)
    process = processes.Process(target=_serve, args=(listener, ended, tells, load, arguments), daemon=True)
    try:
        process.start()
    finally:
        for handed in (listener, ended, tells):
            handed.close()
    return WarmParent(process, Place(address, alive), told)


class WarmContext(context.ForkServerContext):
    """A multiprocessing context whose processes are forks of a warm parent."""

    def __init__(self, place: Place):
        super().__init__()
        self.place = place

    def Process(self, *given: Any, **options: Any) -> WarmProcess:  # type: ignore[override]
        """A process that is not started yet. Its start raises OSError or EOFError where the parent is gone."""
        made = WarmProcess(*given, **options)
        made.place = self.place
        return made


class WarmProcess(context.ForkServerProcess):
    """A fork of a warm parent."""

    place: Place | None = None

    @staticmethod
    def _Popen(process: Any) -> _Popen:
        return _Popen(process)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "place": None}  # the fork has it from its parent


class _Popen(popen_forkserver.Popen):
    """The standard library's, asking another fork server than the one of this process."""

    def _launch(self, process: Any) -> None:
        place, buffer = process.place, io.BytesIO()
        prepared = spawn.get_preparation_data(process._name)
        context.set_spawning_popen(self)
        try:
            reduction.dump(prepared, buffer)
            reduction.dump(process, buffer)
        finally:
            context.set_spawning_popen(None)
        self.sentinel, given = _new_process(place, self._fds)  # type: ignore[attr-defined]
        kept = os.dup(given)  # the fork sees by it whether this process still lives
        self.finalizer = util.Finalize(self, _close, (kept, self.sentinel))
        with os.fdopen(given, "wb", closefd=True) as pipe:
            pipe.write(buffer.getbuffer())
        self.pid = servers.read_signed(self.sentinel)


def _new_process(place: Place, fds: list[int]) -> tuple[int, int]:
    """Ask a warm parent for a fork: where its id and its end are told, and where it reads what it is to do."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(place.address)
        (told, tells), (read, given) = os.pipe(), os.pipe()
        try:
            tracker = resource_tracker.getfd()
            assert tracker is not None
            handed = [read, tells, place.alive.fileno(), tracker, *fds]
            reduction.sendfds(client, handed)
        except BaseException:
            os.close(told)
            os.close(given)
            raise
        finally:
            os.close(read)
            os.close(tells)
    return told, given


def _close(*fds: int) -> None:
    for fd in fds:
        os.close(fd)


def _serve(
    listener: socket.socket, ended: Connection, tells: Connection, load: Callable[..., None], arguments: tuple
) -> None:
    """Load, then be a fork server until nobody holds the other end of ``ended``."""
    try:
        load(*arguments)
        problem = "" if threads() == 1 else f"It has {threads()} threads after loading, and may not be forked so."
    except Exception as error:  # whatever it is, its forks can do the same and say what they think of it
        problem = f"It could not load ({type(error).__name__}: {error})."
    gc.collect()
    gc.freeze()  # a collection in a fork would write to every object, and so copy it
    tells.send_bytes(problem.encode())
    tells.close()
    if problem:
        return
    until = os.dup(ended.fileno())
    ended.close()
    servers.main(listener.detach(), until, [])


def threads() -> int:
    """Threads of this process; 1 where the system does not say."""
    place = Path("/proc/self/task")
    return len(list(place.iterdir())) if place.exists() else 1
