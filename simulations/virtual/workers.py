"""Where a simulation's worker processes are forked from: a parent with the imports and the frozen models.

What workers only read, they share with it: seven take little more memory than one. Each is a process of its own all the
same, which may die, be killed, or keep its centers' cases, without any other noticing.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from common.runtime.executor import START_METHOD, processes
from common.runtime.warm import ONE_THREAD, WarmContext, WarmParent, start_warm

PRELOAD = ["simulations.virtual.local_grid", "client.center.center", "peft"]


class Workers:
    """The parent of a grid's workers, started with the first of them and again whenever it died.

    Args:
        frozen: the frozen models that the centers use, as JSON of their `BackboneSpec`.
    """

    def __init__(self, frozen: Sequence[str] = ()):
        self._frozen = list(frozen)
        self._parent: WarmParent | None = None

    def processes(self) -> Any:
        """The multiprocessing context that a worker is started with."""
        if START_METHOD != "forkserver":
            return multiprocessing.get_context("spawn")
        if self._parent is None or not self._parent.is_alive:
            self.close()
            self._parent = _ready(self._frozen) or _ready([])
        return processes() if self._parent is None else WarmContext(self._parent.place)

    def close(self) -> None:
        """End the parent; workers are ended by whoever has them."""
        if self._parent is not None:
            self._parent.end()
        self._parent = None


def _ready(frozen: Sequence[str]) -> WarmParent | None:
    """A parent that serves; None where it cannot load: then each worker says of which center, and why."""
    processes().set_forkserver_preload(PRELOAD)
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(dict.fromkeys(ONE_THREAD, "1"))  # a fork has one thread; a pool's others would be missed
    try:
        parent = start_warm(processes(), load, list(frozen), dict(os.environ))
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    while (problem := parent.problem(wait_s=0.1)) is None:
        if not parent.is_alive:
            problem = "It ended."
            break
    if not problem:
        return parent
    parent.end()
    return None


def load(frozen: Sequence[str], environment: Mapping[str, str]) -> None:
    """In the parent: the starting process's environment, which the imports' process may not have, and the models."""
    import torch

    from client.center.resident import frozen_model

    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(1)
    for spec in frozen:
        frozen_model(spec, "cpu")


def start_worker() -> None:
    """A worker is single-threaded unless its center asks otherwise, offline, and ends with who started it."""
    os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", FLWR_TELEMETRY_ENABLED="0")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the parent decides, then stops us

    def watch() -> None:
        starter = multiprocessing.parent_process()
        if starter is not None:
            starter.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
