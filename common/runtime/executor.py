"""Executor: Flower's tasks run as processes of this checkout's own code, never of the code that a bundle brings.

Flower's SuperExec fetches a task and starts a program that unpacks the bundle and runs what is in it. Here the loop
that fetches tasks is Flower's and what it starts is ours: a fork of a server process that has imported torch and MONAI
already, so that a process of its own for every message costs milliseconds and not the ten seconds of their imports.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NoReturn, Protocol

from flwr.supercore.constant import TaskType
from flwr.supercore.superexec import run_superexec as superexec
from flwr.supercore.superexec.executor import ExecutionSpec, LaunchResult

from common.runtime.release import CHANGED, release_stamp
from common.runtime.waits import Waits
from common.runtime.warm import ONE_THREAD

LOOK_S = 1.0

log = logging.getLogger("fedgraft.node")

START_METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"


@dataclass(frozen=True)
class TaskAccess:
    """How a task's process reaches the Runtime API that has its input. Its token is on no command line."""

    address: str
    token: str
    insecure: bool
    certificates: str | None
    parent: int
    release: str  # digest of the code that may be asked for


class Lent(Protocol):
    """Something that one task's process is handed, and the executor lets go of."""

    def close(self) -> None: ...


class Keeper(Protocol):
    """What an executor keeps ready for its tasks' processes, and looks after between them."""

    def lend(self) -> Lent: ...

    def tend(self) -> None: ...

    def close(self) -> None: ...


class OwnCode:
    """A Flower executor (its ``Executor`` protocol) that runs one function of ours in a process per task.

    Args:
        run: one task, with its access and, where there is a keeper, with what that lends.
        is_current: whether the code that this process imported is still that of the files.
    """

    def __init__(
        self,
        kind: TaskType,
        run: Callable[..., None],
        *,
        release: str,
        died: Callable[[TaskAccess, int], None] | None = None,
        keeper: Keeper | None = None,
        is_current: Callable[[], bool] = lambda: True,
    ):
        self.kind, self.run, self.release, self.died = kind, run, release, died
        self.keeper, self.is_current = keeper, is_current
        self._running: list[tuple[BaseProcess, TaskAccess]] = []
        self._base = _base()
        self._looked, self._is_current = time.monotonic(), True
        self.waits = Waits()  # between two looks for a task

    def get_eligible_capacity(
        self, supported: set[TaskType], *, insecure: bool = False, root_certificates_path: str | None = None
    ) -> tuple[set[TaskType], set[str]]:
        """One kind of task only: agents, models and connectors are not part of this project.

        None once this release's files have changed: what runs ends, then this process does, and is started afresh.
        """
        if time.monotonic() - self._looked > LOOK_S:
            self._looked, self._is_current = time.monotonic(), self.is_current()
        if self._is_current:
            return supported & {self.kind}, set()
        if not self._running:
            self._start_afresh()
        return set(), set()

    def wait_for_capacity(
        self,
        task_type: TaskType | None = None,
        *,
        fab_hash: str | None = None,
        insecure: bool = False,
        root_certificates_path: str | None = None,
    ) -> None:
        """There is always room: a node works on one message at a time."""

    def launch(self, spec: ExecutionSpec) -> LaunchResult:
        """Start one task's process."""
        if spec.task_type != self.kind:
            return LaunchResult.failed(f"This executor runs {self.kind} tasks only.")
        access = TaskAccess(
            spec.runtime_api_address,
            spec.token,
            spec.insecure,
            spec.root_certificates_path,
            os.getpid(),
            self.release,
        )
        if not self.is_current():  # within the last second: the message is lost with the node, and asked for again
            self._start_afresh()
        lent = [] if self.keeper is None else [self.keeper.lend()]
        process = processes().Process(target=self.run, args=(access, *lent))
        process.start()
        for each in lent:
            each.close()
        self._running.append((process, access))
        self.waits.begin()
        return LaunchResult.accepted()

    def reconcile(self) -> None:
        """Forget the processes that ended, and report those that a signal ended."""
        self._look_at_base()
        if self.keeper is not None:
            self.keeper.tend()
        for process, access in self._running:
            if process.exitcode is not None and process.exitcode < 0 and self.died is not None:
                self.died(access, -process.exitcode)
        still = [(process, access) for process, access in self._running if process.exitcode is None]
        if len(still) < len(self._running):
            self.waits.begin()  # the next message may come soon
        self._running = still

    def close(self) -> None:
        """Ask what still runs to end."""
        if self.keeper is not None:
            self.keeper.close()
        for process, _ in self._running:
            if process.is_alive():
                process.terminate()

    def _start_afresh(self) -> NoReturn:
        log.warning("Files of this release have changed since they were imported: the executor starts afresh.")
        self.close()
        os._exit(CHANGED)

    def _look_at_base(self) -> None:
        if self._base is not None and _has_ended(self._base):
            log.warning("The process that has the imports (%s) ended: another one is started.", self._base)
            processes().Process(target=_nothing).start()
            self._base = _base()


def processes() -> Any:
    """How this machine starts processes: forked from one that has the imports, where there is fork."""
    return multiprocessing.get_context(START_METHOD)


def forks() -> Any:
    """How a task's process, which has its imports, starts another while it still has a single thread."""
    return multiprocessing.get_context("fork" if START_METHOD == "forkserver" else "spawn")


def serve(
    kind: TaskType,
    run: Callable[..., None],
    *,
    preload: Sequence[str],
    died: Callable[[TaskAccess, int], None] | None = None,
    keeper: Callable[[], Keeper] | None = None,
) -> None:
    """Fetch and run tasks until stopped: Flower's own loop around our executor. Reads the process's command line.

    Args:
        run: answers one task, in a process of its own.
        preload: modules that every such process finds imported.
        died: told of a process that a signal ended, with the signal's number.
        keeper: makes what is kept ready for tasks, where this machine has fork.
    """
    arguments = _arguments()
    log_to_own_file()
    if START_METHOD == "forkserver":
        os.environ.update(dict.fromkeys(ONE_THREAD, "1"))  # a fork has one thread; a pool's others would be missed
        processes().set_forkserver_preload(list(preload))
        processes().Process(target=_nothing).start()  # the imports happen now, not when the first message comes
    executor = OwnCode(
        kind,
        run,
        release=arguments.release,
        died=died,
        keeper=keeper() if keeper is not None and START_METHOD == "forkserver" else None,
        is_current=_current(arguments.files),
    )
    superexec.get_executor = lambda *_, **__: executor
    superexec.time = executor.waits  # type: ignore[assignment]
    superexec.run_superexec(
        runtime_api_address=arguments.runtime_api_address,
        insecure=arguments.root_certificates is None,
        root_certificates_path=arguments.root_certificates,
        superexec_auth_secret=Path(arguments.secret).read_bytes(),
        parent_pid=arguments.parent_pid,
        runtime_dependency_install=False,
    )


def run_in_flower(
    program: str,
    access: TaskAccess,
    *,
    inspect: Callable[[bytes], None],
    replaced: Mapping[str, Any],
    settings: Mapping[str, Any] | None = None,
) -> None:
    """One task in Flower's own program, with this checkout in the place of the bundle that came with it.

    Args:
        program: Flower's module, whose last name is its function: ``flwr.supernode.runtime.run_clientapp``.
        inspect: gets the bundle where Flower would unpack it.
        replaced: name in Flower's module -> what stands there instead.
        settings: what this program takes beside the task's access.
    """
    module: Any = importlib.import_module(program)
    module.install_from_fab = lambda bundle, *, skip_prompt: inspect(bundle)
    for name, own in replaced.items():
        setattr(module, name, own)
    getattr(module, program.rpartition(".")[2])(
        runtime_api_address=access.address,
        token=access.token,
        insecure=access.insecure,
        parent_pid=access.parent,
        runtime_dependency_install=False,
        **(settings or {}),
    )


def log_to_own_file() -> None:
    """What a task's process logs goes to the log file of whoever started it, never over the network."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", force=True)
    logging.getLogger("httpx").setLevel(logging.WARNING)


def end_with(parent: int) -> None:
    """End this process when another one is gone: a fork's parent is the fork server, not who asked for it."""

    def watch() -> None:
        while _exists(parent):
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def _base() -> int | None:
    """The fork server's process, where there is one."""
    from multiprocessing import forkserver

    found = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    return None if found is None else int(found)


def _has_ended(child: int) -> bool:
    """Whether a child of this process has ended, be it waited for or not."""
    try:
        return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def _current(stamped: str | None) -> Callable[[], bool]:
    """Whether the release's files are those that were stamped before they were imported."""
    return lambda: stamped is None or release_stamp() == stamped


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def _nothing() -> None:
    """Starts the fork server."""


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runtime-api-address", required=True)
    parser.add_argument("--secret", required=True, help="file with the secret shared with the SuperNode or SuperLink")
    parser.add_argument("--release", required=True, help="digest of the code that a bundle must have")
    parser.add_argument("--files", help="stamp of the release's files, made before its digest; without it none is seen")
    parser.add_argument("--root-certificates", help="certificate of the Runtime API; without it, plain on loopback")
    parser.add_argument("--parent-pid", type=int, required=True)
    return parser.parse_args()
