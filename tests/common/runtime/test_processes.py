"""What is started ends: with its whole group when it is stopped, and when its parent is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from common.errors import FedgraftError
from common.runtime.processes import environment, last_lines, program, start_process, stop_processes

ROOT = Path(__file__).resolve().parents[3]
FAMILY = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(99)"])
print("up", flush=True)
time.sleep(99)
"""
PARENT = """
import sys, time
from pathlib import Path
from common.runtime.processes import start_process
child = start_process([sys.executable, "-c", "import time; time.sleep(99)"], log=Path(sys.argv[1]), home=Path("."))
print(child.pid, flush=True)
time.sleep(99)
"""


def gone(pid: int, within_s: float = 20.0) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


def test_stopping_stops_what_it_started_too(tmp_path):
    process = start_process([sys.executable, "-c", FAMILY], log=tmp_path / "log", home=tmp_path)
    while "up" not in (tmp_path / "log").read_text():
        time.sleep(0.05)
    [child] = psutil.Process(process.pid).children()
    stop_processes([process])
    assert process.returncode == -signal.SIGTERM and gone(child.pid)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
def test_a_child_does_not_outlive_a_killed_parent(tmp_path):
    command = [sys.executable, "-c", PARENT, str(tmp_path / "log")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        os.kill(parent.pid, signal.SIGKILL)
    assert gone(child)


def test_nothing_of_the_outer_environment_points_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    monkeypatch.setenv("FLWR_HOME", "/elsewhere")
    seen = environment(tmp_path, {"MORE": "1"})
    assert seen["PYTHONPATH"] == str(ROOT) and seen["FLWR_HOME"] == str(tmp_path / "flwr")
    assert seen["PYTHONSAFEPATH"] == "1" and seen["FLWR_TELEMETRY_ENABLED"] == "0" and seen["MORE"] == "1"


def test_the_end_of_a_log_and_a_missing_program():
    assert last_lines(Path("/nowhere")) == "it said nothing"
    with pytest.raises(FedgraftError, match="make setup"):
        program("flower-nonsense")
