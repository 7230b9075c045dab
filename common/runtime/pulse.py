"""Signs of life: while a command works in silence, a line now and then says what is under way and for how long."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

EVERY_S = 15.0  # a person who sees nothing for longer thinks that it hangs


class Pulse:
    """What this process is doing, and when it last said anything."""

    def __init__(self) -> None:
        self.doing, self.since, self.said = "starting", time.monotonic(), time.monotonic()

    def now(self, doing: str) -> None:
        """Something else begins."""
        self.doing, self.since = doing, time.monotonic()

    def overdue(self, every_s: float) -> str | None:
        """The line to print where nothing was printed for ``every_s`` seconds."""
        moment = time.monotonic()
        if moment - self.said < every_s:
            return None
        return f"  ... {self.doing}, for {in_words(moment - self.since)}"


PULSE = Pulse()  # one a process, as its standard output is


def under_way(doing: str) -> None:
    """Name what begins now, for the lines that break a silence: ``under_way("round 3 of 12 of step tumour_ct")``."""
    PULSE.now(doing)


@contextmanager
def signs_of_life(*, every_s: float = EVERY_S) -> Iterator[None]:
    """Within, nobody waits longer than about ``every_s`` seconds for a line on standard output."""
    stream, over = sys.stdout, threading.Event()
    listening: Any = _Listening(stream)
    PULSE.now("starting")
    PULSE.said = time.monotonic()
    thread = threading.Thread(target=_beat, args=(listening, over, every_s), name="pulse", daemon=True)
    sys.stdout = listening
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        sys.stdout = stream


def _beat(stream: Any, over: threading.Event, every_s: float) -> None:
    while not over.wait(every_s / 10):
        if line := PULSE.overdue(every_s):
            stream.write(f"{line}\n")
            stream.flush()


class _Listening:
    """A stream that notices when something is written to it."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        PULSE.said = time.monotonic()
        written = self._stream.write(text)
        if text.endswith("\n"):
            self._stream.flush()  # into a pipe or a file too: whoever follows it sees each line as it comes
        return written

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def in_words(seconds: float) -> str:
    """``45 s``, ``4 min``, ``2 h 10 min``: as exact as an estimate of time is."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
