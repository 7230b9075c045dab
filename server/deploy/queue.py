"""Queue: runs of one federation that share hospitals go one after another, in the order in which they were started.

Each `server run` holds a ticket, a locked file in the coordinator's folder; the lock goes with its process, however it
ends. A hospital works on one message at a time: two runs at once would make each other late, and deadlines would be
missed by centers that are well.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from common.config.run import Run

FOLDER = "queue"
POLL_S = 1.0


@dataclass(frozen=True)
class Ticket:
    """One run that is under way or waits.

    Args:
        centers: whom it may ask; empty: every enrolled hospital.
    """

    path: Path
    name: str
    centers: frozenset[str]

    def shares_with(self, other: Ticket) -> bool:
        """Whether both may ask the same hospital."""
        return not self.centers or not other.centers or bool(self.centers & other.centers)


def centers_of(run: Run) -> list[str]:
    """Whom a run may ask, sorted; empty: every enrolled hospital, or a pattern that may mean any."""
    named = {center for step in run.steps.values() for center in (*step.centers, *step.evaluate_at)}
    return [] if any(sign in center for center in named for sign in "*?") else sorted(named)


@contextmanager
def in_turn(
    folder: Path,
    name: str,
    centers: Sequence[str],
    *,
    orphans: Callable[[], list[str]] = list,
    say: Callable[[str], None] = print,
    poll_s: float = POLL_S,
) -> Iterator[None]:
    """Wait until no earlier run that shares a hospital is under way, and hold this one's place meanwhile.

    Args:
        folder: the coordinator's.
        orphans: names of other runs that go on although no `server run` follows them: its process was killed.
    """
    place = folder / FOLDER
    place.mkdir(exist_ok=True, mode=0o700)
    path = place / f"{time.time_ns():020d}-{os.getpid()}.json"
    own, told = Ticket(path, name, frozenset(centers)), ""
    with path.with_suffix(".new").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # before anybody can find it: without its lock a ticket is a killed run's
        json.dump({"name": name, "centers": sorted(centers)}, held)
        held.flush()
        path.with_suffix(".new").rename(path)
        try:
            while waits_for := [one.name for one in _before(own)] or [n for n in orphans() if n != name]:
                sentence = f"{name} waits: {', '.join(waits_for)} asks the same hospitals and was started before it"
                if sentence != told:
                    say(told := sentence)
                time.sleep(poll_s)
            yield
        finally:
            path.unlink(missing_ok=True)


def living(folder: Path) -> list[Ticket]:
    """Tickets whose processes are there, the oldest first; what a killed one left is removed."""
    return [ticket for path in sorted((folder / FOLDER).glob("*.json")) if (ticket := _read(path)) is not None]


def waiting(folder: Path) -> list[str]:
    """Who waits for whom now, a sentence each."""
    found = [(ticket.name, [one.name for one in _before(ticket)]) for ticket in living(folder)]
    return [f"{name} waits for {', '.join(earlier)}" for name, earlier in found if earlier]


def _before(own: Ticket) -> list[Ticket]:
    earlier = [one for one in living(own.path.parent.parent) if one.path.name < own.path.name]
    return [one for one in earlier if one.shares_with(own)]


def _read(path: Path) -> Ticket | None:
    """None where nobody holds it any more."""
    try:
        with path.open("r+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                said = json.loads(file.read())
                return Ticket(path, str(said["name"]), frozenset(said["centers"]))
            path.unlink(missing_ok=True)  # with its lock held, so that nobody else takes it for a living one
    except (FileNotFoundError, ValueError, KeyError):
        return None
    return None
