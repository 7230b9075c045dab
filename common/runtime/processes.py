"""Child processes that write to a log of their own and never outlive the one that started them.

Each child leads a process group, so that stopping it stops whatever it started; on Linux the kernel ends it when its
parent dies, however that dies.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from common.errors import FedgraftError
from common.runtime.offline import SWITCHES, without_proxy

ROOT = Path(__file__).resolve().parents[2]
STOP_S = 10.0
PR_SET_PDEATHSIG = 1
SHADOWS = ("PYTHONPATH", "RAY_ADDRESS", "FLWR_HOME")  # an outer setting must not reach what is started here

Process = subprocess.Popen[bytes]


def start_process(command: Sequence[str | Path], *, log: Path, home: Path, **variables: str) -> Process:
    """Start a program in ``home``, offline and with this checkout as its only extra import path.

    Args:
        log: file that its output is appended to.
        home: its working directory and, below it, Flower's own folder.
        variables: environment beside the switches of `common.runtime.offline`.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            [str(part) for part in command],
            cwd=home,
            env=environment(home, variables),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_end_with_parent() if sys.platform == "linux" else None,
        )


def environment(home: Path, variables: Mapping[str, str]) -> dict[str, str]:
    """What a child sees: no telemetry, no downloads, no import from its working directory."""
    inherited = {name: value for name, value in os.environ.items() if name not in SHADOWS}
    own = {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
        "PYTHONPATH": str(ROOT),
        "PYTHONSAFEPATH": "1",
        "PYTHONUNBUFFERED": "1",
        "FLWR_HOME": str((home / "flwr").resolve()),
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.2",
        "FEDGRAFT_HOME": os.environ.get("FEDGRAFT_HOME", str(ROOT / "common")),
    }
    return {**SWITCHES, **inherited, **without_proxy(inherited), **own, **variables}


def program(name: str) -> str:
    """A command that the environment of this interpreter brought, such as ``flower-supernode``."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise FedgraftError(f"'{name}' is not installed beside {sys.executable}; run `make setup`.")
    return found


def stop_processes(processes: Sequence[Process], *, grace_s: float = STOP_S) -> None:
    """Ask each process group to end, in the given order, then make it end."""
    for process in processes:
        _signal(process, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(grace_s)
        _signal(process, signal.SIGKILL)  # also what is left of its group
        process.wait()


@contextmanager
def terminated_is_interrupted() -> Iterator[None]:
    """SIGTERM as KeyboardInterrupt inside the block, so that what was started is stopped then, too."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def last_lines(log: Path, count: int = 5) -> str:
    """The end of a log, for a sentence about why a process ended."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return "\n".join(line for line in lines if line.strip()).strip()[-400 * count :] or "it said nothing"


def _signal(process: Process, number: signal.Signals) -> None:
    try:
        os.killpg(process.pid, number)
    except (ProcessLookupError, PermissionError):
        return


def _end_with_parent() -> Callable[[], object]:
    libc = ctypes.CDLL(None)
    return lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)  # nginx must take its workers along
