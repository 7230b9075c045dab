"""Keeper: the executor's half of a warm node. It keeps a parent that has loaded the step, to be forked for messages.

A message that was answered says what it had to load (`client.center.wanted`); a warm parent then loads that, while
nobody waits for it, under the message's own limits. It never gets an order's tensors, it ends as soon as center.yaml,
the patients' folder or the model's files change, when it dies it is started again, and a message that comes while it
loads, or after it failed, is answered by a process that loads for itself.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil

from client.center.wanted import Wanted
from common.runtime.stamp import stamp
from common.runtime.warm import Place, WarmContext, WarmParent, start_warm

LOOK_S = 5.0  # how often files are looked at while no message comes; they are before every message
IDLE_S = 900.0  # without a message for so long, it ends: prepared cases stay in memory no longer
DEATHS = 3  # a step's parent that died so often is not started again
MOST_HINT = 16 << 20

log = logging.getLogger("fedgraft.node")


@dataclass(frozen=True)
class Lent:
    """What a message's process gets beside its access: whom to fork, if anybody, and where to say what it loaded."""

    place: Place | None
    hint: Connection

    def close(self) -> None:
        """In the process that handed it on."""
        self.hint.close()


class Keeper:
    """Warm parents of one step, each forked from the one before with more loaded; the last one is forked for messages.

    Args:
        processes: the context of the fork server that has the imports.
        load: what a parent loads something wanted with.
    """

    def __init__(self, processes: Any, load: Callable[[Wanted], None], *, clock: Callable[[], float] = time.monotonic):
        self._processes, self._load, self._clock = processes, load, clock
        self._parents: list[WarmParent] = []
        self._wanted: Wanted | None = None
        self._more: Wanted | None = None  # said while the parent loads: that is not begun again for it
        self._stamp: str | None = None
        self._started = self._looked = self._used = 0.0
        self._is_ready = False
        self._hints: list[Connection] = []
        self._failed: dict[tuple[str, str], int] = {}  # deaths by step; DEATHS: it is not tried again

    @property
    def parent(self) -> WarmParent | None:
        """The one to be forked, once it is ready."""
        return self._parents[-1] if self._parents and self._is_ready else None

    def lend(self) -> Lent:
        """For the next message's process. Nobody is lent whose files have changed."""
        self._used = self._clock()
        self.tend()
        if self._parents and self._is_stale():
            self._drop("Its files have changed.")
        listening, hint = Pipe(duplex=False)
        self._hints.append(listening)
        return Lent(None if self.parent is None else self.parent.place, hint)

    def tend(self) -> None:
        """Look after the parent; called a few times a second."""
        for hint in self._said():
            self._want(hint)
        if self._parents:
            self._look()

    def close(self) -> None:
        """End every parent."""
        self._drop("")

    def _said(self) -> list[Wanted]:
        found, still = [], []
        for listening in self._hints:
            if not listening.poll():
                still.append(listening)
                continue
            with suppress(EOFError, OSError, ValueError, KeyError, TypeError):  # ended without one: no good answer
                found.append(Wanted.from_bytes(listening.recv_bytes(MOST_HINT)))
            listening.close()
        self._hints = still
        return found

    def _want(self, wanted: Wanted) -> None:
        if self._failed.get(wanted.key, 0) >= DEATHS or (self._wanted is not None and self._wanted.covers(wanted)):
            return
        if self._wanted is not None and self._wanted.key == wanted.key and not self._is_stale():
            if not self._is_ready:
                self._more = wanted
                return
            wanted = self._wanted.with_sets_of(wanted)
        else:
            self._drop("")
        self._start(wanted)

    def _start(self, wanted: Wanted) -> None:
        seen = stamp(wanted.files, without=wanted.without)
        if seen is None:  # too many files to look at before every message: only the model is kept
            wanted = replace(wanted, sets=(), files=tuple(name for name in wanted.files if not Path(name).is_dir()))
            seen = stamp(wanted.files)
        elif self._parents and seen != self._stamp:
            self._drop("Its files have changed.")
        before = self.parent
        context = self._processes if before is None else WarmContext(before.place)
        self._wanted, self._more, self._stamp, self._is_ready = wanted, None, seen, False
        self._started = self._looked = self._clock()
        try:
            self._parents.append(start_warm(context, self._load, wanted))
            log.info("warm parent %s loads", self._parents[-1].process.pid)
        except (OSError, EOFError) as error:
            self._give_up(f"It could not be started ({error}).")

    def _look(self) -> None:
        parent, now = self._parents[-1], self._clock()
        assert self._wanted is not None
        if not self._is_ready and (problem := parent.problem()) is not None:
            if problem:
                self._give_up(problem)
                return
            self._is_ready, self._used = True, max(self._used, now)
            log.info("warm parent %s is ready after %.1f s", parent.process.pid, now - self._started)
            if self._more is not None:
                self._want(self._more)
                return
        if not parent.is_alive:
            self._died(parent)
        elif not self._is_ready and now - self._started > self._wanted.seconds:
            self._give_up(f"It loaded for longer than policy.maximum_seconds ({self._wanted.seconds:g} s).")
        elif now - self._used > IDLE_S:
            self._drop(f"No message came for {IDLE_S / 60:.0f} minutes.")
        elif now - self._looked > LOOK_S or not self._is_ready:
            self._looked = now
            if _memory(parent) > self._wanted.memory:
                self._give_up("It holds more memory than a message may (policy.maximum_memory_gb).")
            elif self._is_stale():
                self._drop("Its files have changed.")

    def _is_stale(self) -> bool:
        assert self._wanted is not None
        return stamp(self._wanted.files, without=self._wanted.without) != self._stamp

    def _died(self, parent: WarmParent) -> None:
        wanted = self._wanted
        assert wanted is not None
        count = self._failed[wanted.key] = self._failed.get(wanted.key, 0) + 1
        again = "it is started again" if count < DEATHS else "every message of this step loads for itself now"
        log.warning("warm parent %s ended (exit code %s): %s", parent.process.pid, parent.process.exitcode, again)
        self._drop("")
        if count < DEATHS:
            self._start(wanted)

    def _give_up(self, reason: str) -> None:
        assert self._wanted is not None
        self._failed[self._wanted.key] = DEATHS
        log.warning("No warm parent for this step, every message loads for itself: %s", reason)
        self._drop("")

    def _drop(self, reason: str) -> None:
        if reason and self._parents:
            log.info("warm parent ends: %s", reason)
        while self._parents:
            self._parents.pop().end()
        self._wanted, self._more, self._stamp, self._is_ready = None, None, None, False


def _memory(parent: WarmParent) -> int:
    """Bytes that a parent holds, without its forks, which are watched by whoever started them."""
    with suppress(psutil.Error):
        return int(psutil.Process(parent.process.pid).memory_info().rss)
    return 0
