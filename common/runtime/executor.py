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
from typing import Any

from flwr.supercore.constant import TaskType
from flwr.supercore.superexec import run_superexec as superexec
from flwr.supercore.superexec.executor import ExecutionSpec, LaunchResult

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


class OwnCode:
    """A Flower executor (its ``Executor`` protocol) that runs one function of ours in a process per task."""

    def __init__(
        self,
        kind: TaskType,
        run: Callable[[TaskAccess], None],
        *,
        release: str,
        died: Callable[[TaskAccess, int], None] | None = None,
    ):
        self.kind, self.run, self.release, self.died = kind, run, release, died
        self._running: list[tuple[BaseProcess, TaskAccess]] = []

    def get_eligible_capacity(
        self, supported: set[TaskType], *, insecure: bool = False, root_certificates_path: str | None = None
    ) -> tuple[set[TaskType], set[str]]:
        """One kind of task only: agents, models and connectors are not part of this project."""
        return supported & {self.kind}, set()

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
        process = processes().Process(target=self.run, args=(access,))
        process.start()
        self._running.append((process, access))
        return LaunchResult.accepted()

    def reconcile(self) -> None:
        """Forget the processes that ended, and report those that a signal ended."""
        for process, access in self._running:
            if process.exitcode is not None and process.exitcode < 0 and self.died is not None:
                self.died(access, -process.exitcode)
        self._running = [(process, access) for process, access in self._running if process.exitcode is None]

    def close(self) -> None:
        """Ask what still runs to end."""
        for process, _ in self._running:
            if process.is_alive():
                process.terminate()


def processes() -> Any:
    """How this machine starts processes: forked from one that has the imports, where there is fork."""
    return multiprocessing.get_context(START_METHOD)


def forks() -> Any:
    """How a task's process, which has its imports, starts another while it still has a single thread."""
    return multiprocessing.get_context("fork" if START_METHOD == "forkserver" else "spawn")


def serve(
    kind: TaskType,
    run: Callable[[TaskAccess], None],
    *,
    preload: Sequence[str],
    died: Callable[[TaskAccess, int], None] | None = None,
) -> None:
    """Fetch and run tasks until stopped: Flower's own loop around our executor. Reads the process's command line.

    Args:
        run: answers one task, in a process of its own.
        preload: modules that every such process finds imported.
        died: told of a process that a signal ended, with the signal's number.
    """
    arguments = _arguments()
    if START_METHOD == "forkserver":
        processes().set_forkserver_preload(list(preload))
        processes().Process(target=_nothing).start()  # the imports happen now, not when the first message comes
    executor = OwnCode(kind, run, release=arguments.release, died=died)
    superexec.get_executor = lambda *_, **__: executor
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
    parser.add_argument("--root-certificates", help="certificate of the Runtime API; without it, plain on loopback")
    parser.add_argument("--parent-pid", type=int, required=True)
    return parser.parse_args()
