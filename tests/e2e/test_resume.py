"""Killed anywhere and started again, a run ends with the adapters of an undisturbed one."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from common.config.load import compose_run
from common.errors import ConfigError
from common.store.ledger import Ledger
from server import curriculum
from server.evaluation import scoring
from server.learning import rounds
from server.learning.strategy import AdapterStrategy
from server.run.folder import RunFolder
from server.run.narration import Narrator
from simulations.virtual.local_grid import LocalGrid
from tests.helpers.small import adapters, all_below, federate, gone, small_run, write_centers, write_cohort

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
    run = small_run(centers=["CHUM", "CHUP"], steps=["tumour_ct", "tumour_ctpet"])
    run.steps["tumour_ctpet"].rounds = 1
    return run


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, small_centers):
    return federate(a_run(), tmp_path_factory.mktemp("undisturbed"), small_centers)


def scores(leader):
    return [event["scores"] for event in leader.ledger.events("step_finished")]


DEATHS = {
    "before the start is validated": (LocalGrid, "send_and_receive", 3, True),
    "before round 2 is sent": (LocalGrid, "send_and_receive", 6, True),
    "after round 2's replies": (AdapterStrategy, "aggregate", 2, True),
    "between checkpoint and ledger": (rounds, "write_tensors", 2, False),
    "after round 1 stands in the ledger": (Narrator, "round_finished", 1, True),
    "in the middle of an evaluation": (scoring, "write_sums", 2, False),
    "before the first commit": (curriculum, "commit", 1, True),
    "after the first commit": (curriculum, "commit", 1, False),
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


def test_a_run_may_go_on_with_another_number_of_workers_but_not_of_threads(tmp_path, small_centers):
    run = small_run(centers=["CHUM"], steps=["tumour_ct"], rounds=1)
    first = adapters(federate(run, tmp_path, small_centers))
    run.runtime.workers += 1
    assert adapters(federate(run, tmp_path, small_centers)) == first
    run.runtime.threads += 1  # convolution gradients depend on it
    try:
        with pytest.raises(ConfigError, match="another configuration"):
            federate(run, tmp_path, small_centers)
    finally:
        torch.set_num_threads(1)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_process_shot_in_the_middle_of_a_run_is_resumed_by_the_same_command(tmp_path):
    write_cohort(tmp_path / "cohort", {"CHUM": 6, "CHUP": 5})
    size = "{spacing_mm: [6,6,6], size: [16,16,16], window: [16,16,16], crop: center}"
    steps = [f"steps.{s}.{o}" for s in ("tumour_ct", "tumour_ctpet") for o in ("rounds=3", f"view={size}")]
    overrides = [
        "curriculum=smoke", "data=folder", "runtime.workers=2", "data.split.folds=3", "data.split.validation=0.34",
        f"data.root={tmp_path / 'cohort'}", *steps,
    ]  # fmt: skip
    command = [sys.executable, "-m", "simulations", "run", "name=shot", *overrides]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    def start():
        return subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, start_new_session=True
        )

    def ledger():
        return Ledger(tmp_path / "runs" / "shot" / "ledger.jsonl")

    shot = start()
    while shot.poll() is None and not ledger().events("round_finished", round=2):
        time.sleep(0.05)
    workers = all_below(shot.pid)
    os.kill(shot.pid, signal.SIGKILL)
    assert shot.wait() == -signal.SIGKILL and workers
    assert gone(workers), "a killed server leaves no worker behind"

    assert start().wait() == 0
    assert ledger().events("run_resumed")
    assert ledger().events("verified")[-1]["changed_bits"] == {"tumour_ct": 0, "tumour_ctpet": 0}
    files = write_centers(tmp_path / "centers", tmp_path / "cohort", ["CHUM", "CHUP"])
    whole = federate(compose_run(overrides), tmp_path / "whole", files)
    assert {e["step"]: e["key"] for e in ledger().events("step_finished")} == adapters(whole)
