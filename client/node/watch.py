"""A message's process has so much time and so much memory; then it is ended, and the node takes the next message.

Memory is what is resident: a limit on addresses would stop CUDA, which reserves far more than it uses. Where this
process may make a control group (Linux, a delegated part of the tree), the kernel holds the limit too, also against a
process that grows faster than anybody looks.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import psutil

from client.policy import Policy

TICK_S = 0.1
SHARE = 0.9  # of this machine's memory, or its control group's, where the policy names no limit
GROUPS, OWN_GROUP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
DEADLINE, MEMORY = "deadline", "memory"


@dataclass(frozen=True)
class Limits:
    """What one message may take."""

    seconds: float
    bytes: int


class Overrun(Exception):
    """A message took more than it may: a code to answer with, and the sentence for this node's log."""

    def __init__(self, code: str, sentence: str):
        self.code = code
        super().__init__(sentence)


def limits_of(policy: Policy) -> Limits:
    """A policy's, with what this machine has where it names no memory."""
    given = policy.maximum_memory_gb
    return Limits(policy.maximum_seconds, int(SHARE * available()) if given is None else int(given * 1e9))


def available(groups: Path = GROUPS, own: Path = OWN_GROUP) -> int:
    """Bytes of memory that this machine or this process's control group has, whichever is less."""
    place, total = _own_group(groups, own), int(psutil.virtual_memory().total)
    written = _read(place / "memory.max") if place is not None else ""
    return min(total, int(written)) if written.isdigit() else total


def awaited(connection: Connection, process: BaseProcess, limits: Limits) -> bytes:
    """What a process sends, if it stays within its limits.

    Raises:
        Overrun: it did not, and was ended.
        EOFError: it ended by itself without an answer.
    """
    assert process.pid is not None
    group, until = confined(process.pid, limits.bytes), time.monotonic() + limits.seconds
    try:
        while not connection.poll(TICK_S):
            if time.monotonic() >= until:
                raise Overrun(DEADLINE, f"The message took longer than policy.maximum_seconds ({limits.seconds:g} s).")
            if resident(process.pid) > limits.bytes:
                raise _too_much(limits)
        return connection.recv_bytes()
    except EOFError as error:
        if group is not None and was_killed(group):
            raise _too_much(limits) from error
        raise
    except Overrun:
        end(process)
        raise
    finally:
        end_group(group)


def end(process: BaseProcess) -> None:
    """End a process and whatever it started, and wait until it is gone."""
    with suppress(psutil.Error):
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
    process.kill()
    process.join()


def resident(pid: int) -> int:
    """Bytes of memory that a process and its children hold; 0 when it is gone."""
    total = 0
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        for one in (process, *process.children(recursive=True)):
            total += int(one.memory_info().rss)
    return total


def confined(pid: int, most: int, groups: Path = GROUPS, own: Path = OWN_GROUP) -> Path | None:
    """A control group of its own for a process, with this much memory; None where none can be made."""
    place = _own_group(groups, own)
    for parent in (place, place.parent) if place is not None else ():
        if "memory" not in _read(parent / "cgroup.subtree_control").split():
            continue
        made = parent / f"fedgraft-{pid}"
        try:
            made.mkdir()
            (made / "memory.max").write_text(str(most))
            (made / "cgroup.procs").write_text(str(pid))
            return made
        except OSError:
            end_group(made)
    return None


def was_killed(group: Path) -> bool:
    """Whether the kernel ended a process of the group for want of memory."""
    counts = dict(line.split() for line in _read(group / "memory.events").splitlines() if len(line.split()) == 2)
    return int(counts.get("oom_kill", "0")) > 0


def end_group(group: Path | None) -> None:
    """Remove a group that has no process any more; one that still has goes with it."""
    if group is not None:
        with suppress(OSError):
            group.rmdir()


def _too_much(limits: Limits) -> Overrun:
    return Overrun(
        MEMORY,
        f"The message took more memory than it may ({limits.bytes / 1e9:.2f} GB: policy.maximum_memory_gb, or "
        f"{SHARE:.0%} of what this machine has).",
    )


def _own_group(groups: Path, own: Path) -> Path | None:
    """This process's control group, where the machine has version 2 of them."""
    lines = [line.partition("::")[2] for line in _read(own).splitlines() if line.startswith("0::")]
    place = groups / lines[0].lstrip("/") if lines else None
    return place if place is not None and (place / "cgroup.controllers").exists() else None


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
