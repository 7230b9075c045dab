"""The same two apps under Flower's own runtime: the same adapters as LocalGrid, and nothing left running."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
import uuid
from pathlib import Path

import psutil
import pytest

from common.config.load import compose_run
from common.errors import RoundFailed
from common.store.bank import AdapterBank
from server.run.folder import RunFolder
from simulations.simulate import simulate
from simulations.virtual import ray
from tests.test_own_things import CODE, PAGES

OTHERS = "--ssl-certfile"  # a deployed federation's SuperLink has one
SMALL = ["curriculum=smoke", "steps.tumour_ct.rounds=1", "~steps.tumour_ctpet", "compare.pairs=[]", "seed=5"]


def sleeper(mark: str, program: str = "import time; time.sleep(60)") -> subprocess.Popen[bytes]:
    started = subprocess.Popen([sys.executable, "-c", program], env={ray.MARK: mark}, start_new_session=True)
    deadline = time.monotonic() + 10
    while not ray.started_under(mark) and time.monotonic() < deadline:
        time.sleep(0.02)
    return started


def test_what_carries_the_mark_is_found_and_stopped_and_nothing_else_is():
    ours, others = uuid.uuid4().hex, uuid.uuid4().hex
    mine, theirs = sleeper(ours), sleeper(others)
    try:
        ray.stop_all(ours)
        assert ray.started_under(ours) == [] and not psutil.pid_exists(mine.pid)
        assert theirs.poll() is None
    finally:
        theirs.kill()
        theirs.wait()
        mine.wait()


@pytest.mark.slow
def test_a_process_that_ignores_the_request_is_made_to_end(monkeypatch):
    monkeypatch.setattr(ray, "STOP_S", 1.0)
    mark = uuid.uuid4().hex
    program = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    stubborn = sleeper(mark, program)
    time.sleep(0.5)
    started = time.monotonic()
    ray.stop_all(mark)
    assert time.monotonic() - started >= 1.0  # it was asked first
    assert not psutil.pid_exists(stubborn.pid)
    stubborn.wait()


def test_what_it_starts_sees_neither_the_checkout_nor_the_network_services(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ray.ROOT))
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    seen = ray._environment(tmp_path, {"FEDGRAFT_CENTERS": "here"})
    assert "PYTHONPATH" not in seen and "RAY_ADDRESS" not in seen
    assert seen["FLWR_HOME"] == str(tmp_path / "flwr") and seen["RAY_TMPDIR"] == str(tmp_path / "ray")
    assert (seen["FLWR_TELEMETRY_ENABLED"], seen["FLWR_DISABLE_UPDATE_CHECK"]) == ("0", "1")
    assert (seen["FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"], seen["RAY_USAGE_STATS_ENABLED"]) == ("1", "0")


def test_one_supernode_per_center_and_as_many_actors_as_workers():
    run = compose_run(["curriculum=smoke", "runtime.workers=2", "runtime.threads=3"])
    assert ray._federation(run, 7) == "num-supernodes=7 client-resources-num-cpus=3 init-args-num-cpus=6"


def test_paths_of_a_run_do_not_depend_on_the_directory():
    run = compose_run(["curriculum=smoke", "backbone.weights=some/weights.pt"])
    assert ray._absolute(run) == [f"backbone.weights={Path('some/weights.pt').resolve()}"]


@pytest.mark.slow
def test_the_reason_is_told_when_flower_fails_and_nothing_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(ray, "program", lambda name: sys.executable)  # "python --insecure" ends at once
    with pytest.raises(RoundFailed, match="SuperLink did not start"), ray.superlink({}):
        raise AssertionError("it cannot have started")


def test_the_reason_of_a_failed_run_is_its_tracebacks_last_line(tmp_path):
    log, color = tmp_path / "flower.log", "\x1b[91mERROR \x1b[0m:     "
    reason = "common.errors.UnknownName: Unknown site 'x'. Known: y."
    log.write_text(f"{color}Simulation raised an exception\nTraceback:\n  line 1\n{reason}\n{color}Exit Code: 700\n")
    assert ray._last_error(log) == reason
    log.write_text(f"{color}Exit Code: 700\n\nFor more information, visit: <https://flower.ai/>\n")
    assert ray._last_error(log) == "it gave no reason"


@pytest.fixture
def data(tmp_path) -> list[str]:
    """The smoke cohort, from the checkout where it was made before."""
    made = ray.ROOT / "data" / "smoke"
    if made.is_dir():
        shutil.copytree(made, tmp_path / "data")
    return [f"data.root={tmp_path / 'data'}"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ray_and_local_grid_end_with_the_same_adapters(tmp_path, data, monkeypatch):
    monkeypatch.chdir(tmp_path)
    marks: list[str] = []
    make = ray._environment

    def remember(place, variables):
        marks.append(variables[ray.MARK])
        return make(place, variables)

    monkeypatch.setattr(ray, "_environment", remember)
    before = set(psutil.pids())
    overrides = [*SMALL, *data]
    over_ray = ray.simulate_with_flower([*overrides, "runtime.workers=2"], folder=tmp_path / "ray")
    [mark] = marks
    assert ray.started_under(mark) == []
    names = ("raylet", "gcs_server", "flower-superlink", "flower-superexec", "flwr-simulation")
    left = [line for pid in set(psutil.pids()) - before if any(n in (line := command_line(pid)) for n in names)]
    assert not [line for line in left if OTHERS not in line], "a federation of another test may run beside this one"
    local = simulate([*overrides, "runtime.workers=1"], folder=tmp_path / "local")

    assert AdapterBank(over_ray.bank).heads() == AdapterBank(local.bank).heads()
    theirs, ours = (json.loads(place.results.read_text()) for place in (over_ray, local))
    assert theirs["scores"] == ours["scores"]
    assert over_ray.report.stat().st_size > 10_000


EVERY_HOOK = [  # who trains, each batch's loss, the penalty, the gradient, the step, and what is kept at a step's end
    "curriculum=smoke", "compare.pairs=[]", "seed=5", "adapter@steps.tumour_ctpet.adapter=decoder",
    *(f"steps.{step}.{option}" for step in ("tumour_ct", "tumour_ctpet")
      for option in ("writes=tumor", "starts_from=null", "modalities=[CT]", "rounds=1", "evaluate_at=[CHUM]")),
    "steps.tumour_ct.centers=[CHUM]", "steps.tumour_ct.methods=[ewc,projection]",
    "steps.tumour_ctpet.centers=[CHUM,MDA]",
    "steps.tumour_ctpet.methods=[{kind: rehearsal, at: [CHUM], cases: 2},lwf,ewc,proximal,projection]",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_step_that_carries_a_method_of_every_hook_is_the_same_over_ray(tmp_path, data, monkeypatch):
    monkeypatch.chdir(tmp_path)
    overrides = [*EVERY_HOOK, *data]
    over_ray = ray.simulate_with_flower([*overrides, "runtime.workers=2"], folder=tmp_path / "ray")
    local = simulate([*overrides, "runtime.workers=1"], folder=tmp_path / "local")
    theirs, ours = (AdapterBank(place.bank) for place in (over_ray, local))
    assert theirs.heads() == ours.heads()
    head = ours.head("tumor")
    assert {"ewc", "projection"} == {kind for kind in ("ewc", "projection") if theirs.keepsake(head, kind)}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_secure_sums_over_ray_are_those_of_local_grid(tmp_path, data, monkeypatch):
    monkeypatch.chdir(tmp_path)
    overrides = [*SMALL, *data, "federation=secure"]
    over_ray = ray.simulate_with_flower([*overrides, "runtime.workers=2"], folder=tmp_path / "ray")
    local = simulate([*overrides, "runtime.workers=1"], folder=tmp_path / "local")
    assert AdapterBank(over_ray.bank).heads() == AdapterBank(local.bank).heads()
    assert "never one by one" in over_ray.report.read_text()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("no_plugins")
def test_actors_know_a_backbone_a_task_and_a_rule_of_plugins(tmp_path, data, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = [write_plugin(tmp_path, page) for page in ("own-backbone.md", "own-rule.md", "own-task.md")]
    own = ["backbone=segresnet_small", "backbone.random_seed=0", "federation=halfway"]
    own += ["task@steps.tumour_ct.task=regression", "adapter@steps.tumour_ct.adapter=image_prognosis"]
    own += ["steps.tumour_ct.adapter.parts.within.sites=[image_convolutions]"]
    overrides = [*SMALL, *data, f"plugins=[{','.join(files)}]", *own, "steps.tumour_ct.modalities=[CT]"]
    over_ray = ray.simulate_with_flower([*overrides, "runtime.workers=2"], folder=tmp_path / "ray")
    local = simulate([*overrides, "runtime.workers=1"], folder=tmp_path / "local")
    assert AdapterBank(over_ray.bank).heads() == AdapterBank(local.bank).heads()
    scores = json.loads(over_ray.results.read_text())["scores"]
    assert scores and {row["metric"] for row in scores} >= {"within_scale", "error"}


def write_plugin(folder: Path, page: str) -> str:
    """The code of a worked page as a file of the folder, named as one standing in that folder names it."""
    [(title, code)] = CODE.findall((PAGES / page).read_text())
    (folder / title).write_text(code)
    return title


def command_line(pid: int) -> str:
    try:
        return " ".join(psutil.Process(pid).cmdline())
    except psutil.Error:
        return ""


def test_the_run_is_named_apart_from_local_grids(monkeypatch):
    asked: list[list[str]] = []

    def note(overrides, *, folder=None, runtime=None):
        asked.append(list(overrides))
        return RunFolder(Path("nowhere"))

    monkeypatch.setattr(ray, "simulate", note)
    ray.simulate_with_flower(["curriculum=smoke"])
    ray.simulate_with_flower(["curriculum=smoke", "name=mine"])
    assert asked == [["curriculum=smoke", "name=smoke-flower"], ["curriculum=smoke", "name=mine"]]
