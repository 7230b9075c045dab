"""Killed anywhere and started again, a run ends with the adapters of an undisturbed one."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from common.ledger import Ledger
from server import curriculum, rounds, scoring
from server.folder import RunFolder
from server.narration import Narrator
from server.strategy import AdapterStrategy
from simulations.local_grid import LocalGrid
from tests.small import adapters, federate, small_run, write_cohort

ROOT = Path(__file__).resolve().parents[2]


class Killed(BaseException):
    """The process ends here."""


def dies(function, *, at, before=True):
    """``function`` that ends the process before or after its call number ``at``."""
    calls = []

    def dying(*args, **kwargs):
        calls.append(1)
        if before and len(calls) == at:
            raise Killed
        result = function(*args, **kwargs)
        if not before and len(calls) == at:
            raise Killed
        return result

    return dying


def a_run():
    return small_run(centers=["CHUM", "CHUP"], steps=["tumour_ct", "tumour_ctpet"])


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, small_centers):
    return federate(a_run(), tmp_path_factory.mktemp("undisturbed"), small_centers)


def scores(leader):
    return [event["scores"] for event in leader.ledger.events("step_finished")]


DEATHS = {
    "before round 2 is sent": (LocalGrid, "send_and_receive", 5, True),
    "after round 2's replies": (AdapterStrategy, "aggregate_train", 2, True),
    "between checkpoint and ledger": (rounds, "write_tensors", 2, False),
    "after round 1 stands in the ledger": (Narrator, "round_finished", 1, True),
    "in the middle of an evaluation": (scoring, "write_bytes", 2, False),
    "before the first commit": (curriculum, "_commit", 1, True),
    "after the first commit": (curriculum, "_commit", 1, False),
    "in the second step": (rounds, "write_tensors", 3, False),
}


@pytest.mark.parametrize("death", DEATHS)
def test_a_killed_run_ends_with_the_same_adapters(tmp_path, small_centers, undisturbed, monkeypatch, death):
    owner, name, at, before = DEATHS[death]
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, dies(getattr(owner, name), at=at, before=before))
        with pytest.raises(Killed):
            federate(a_run(), tmp_path, small_centers)
    before_resuming = len(Ledger(RunFolder(tmp_path).ledger).events())
    resumed = federate(a_run(), tmp_path, small_centers)
    assert adapters(resumed) == adapters(undisturbed) and scores(resumed) == scores(undisturbed)
    assert len(resumed.ledger.events("run_resumed")) == 1 and resumed.ledger.verify() > before_resuming
    done = [(e["step"], e["round"]) for e in resumed.ledger.events("round_finished")]
    assert done == [(e["step"], e["round"]) for e in undisturbed.ledger.events("round_finished")]


def test_a_finished_run_started_again_does_no_work(tmp_path, small_centers, monkeypatch):
    run = small_run(centers=["CHUM"], steps=["tumour_ct"], rounds=1)
    first = adapters(federate(run, tmp_path, small_centers))
    monkeypatch.setattr(LocalGrid, "send_and_receive", dies(LocalGrid.send_and_receive, at=1))
    assert adapters(federate(run, tmp_path, small_centers)) == first


@pytest.mark.slow
def test_a_process_shot_in_the_middle_of_a_run_is_resumed_by_the_same_command(tmp_path):
    write_cohort(tmp_path / "cohort", {"CHUM": 6, "CHUP": 5})
    size = "{spacing_mm: [6,6,6], size: [16,16,16], window: [16,16,16], crop: center}"
    steps = [f"steps.{s}.{o}" for s in ("tumour_ct", "tumour_ctpet") for o in ("rounds=3", f"view={size}")]
    command = [
        sys.executable, "-m", "simulations", "run", "curriculum=smoke", "data=folder", "runtime.workers=2",
        "data.split.folds=3", "data.split.validation=0.34", f"data.root={tmp_path / 'cohort'}", *steps,
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    def start(name):
        return subprocess.Popen(
            [*command, f"name={name}"], cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, start_new_session=True
        )

    def ledger(name):
        return Ledger(tmp_path / "runs" / name / "ledger.jsonl")

    shot = start("shot")
    while shot.poll() is None and not ledger("shot").events("round_finished", round=2):
        time.sleep(0.05)
    workers = children_of(shot.pid)
    os.kill(shot.pid, signal.SIGKILL)
    assert shot.wait() == -signal.SIGKILL and workers
    deadline = time.monotonic() + 20
    while any(alive(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [pid for pid in workers if alive(pid)], "a killed server leaves no worker behind"

    assert start("shot").wait() == 0 and start("whole").wait() == 0
    assert ledger("shot").events("run_resumed") and not ledger("whole").events("run_resumed")
    keys = [[e["key"] for e in ledger(name).events("step_finished")] for name in ("shot", "whole")]
    assert len(keys[0]) == 2 and keys[0] == keys[1]
    assert ledger("shot").events("verified")[-1]["changed_bits"] == {"tumour_ct": 0, "tumour_ctpet": 0}


def children_of(parent):
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent:
            found.append(int(status.parent.name))
    return found


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
