"""From a run to its virtual hospitals."""

import os

import pytest
from omegaconf import OmegaConf

from client.center.center import Center
from common.config.load import compose_run
from common.config.run import Runtime
from common.errors import DataError
from server.run.folder import RunFolder
from simulations.virtual.centers import data_roots, write_centers
from simulations.virtual.federate import _check_named_centers, worker_count
from tests.helpers.small import federate, small_run


@pytest.mark.parametrize(("runtime", "count"), [(Runtime(workers=3), 3), (Runtime(workers=1, threads=9), 1)])
def test_configured_workers_are_taken(runtime, count):
    assert worker_count(runtime) == count


def test_by_default_threads_times_workers_fit_the_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    assert [worker_count(Runtime(threads=threads)) for threads in (1, 3, 16)] == [8, 2, 1]


def test_each_center_gets_a_file_that_opens(tmp_path, small_root, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = small_run("data=folder", f"data.root={small_root}", "data.minimum_cell=4", "data.minimum_cases=2")
    files, sizes = write_centers(run, RunFolder(tmp_path / "run"), data_roots(run))
    assert sizes == {"CHUM": 6, "CHUP": 5, "HMR": 4, "MDA": 7}
    center = Center.open(files["MDA"])
    assert center.code == "MDA" and len(center.cases) == 7
    assert (center.config.policy.minimum_cases, center.config.policy.minimum_cell) == (2, 4)
    assert OmegaConf.load(files["MDA"]).root == str(small_root.resolve())


@pytest.mark.parametrize(
    ("words", "minimum"),
    [
        (["curriculum=quickstart"], 1),
        (["curriculum=smoke"], 1),
        (["curriculum=quickstart", "data=folder", "data.root=hecktor"], 5),
        (["curriculum=quickstart", "data=sts7", "data.root=sts7"], 1),
        (["curriculum=sts7", "data.root=sts7"], 1),
    ],
)
def test_centers_of_patients_hold_a_hospitals_minimum_and_those_of_public_or_synthetic_ones_none(words, minimum):
    data = compose_run(words).data
    assert (data.minimum_cases, data.minimum_cell) == (minimum, minimum)


def test_a_step_may_only_name_centers_that_exist():
    run = small_run(centers=["CHUM", "XYZ"], steps=["tumour_ct"])
    with pytest.raises(DataError, match=r"Step 'tumour_ct' names XYZ, .* cases of CHUM, CHUP\."):
        _check_named_centers(run, ["CHUP", "CHUM"])
    _check_named_centers(small_run(centers=["*"]), ["CHUM"])


def test_a_step_that_is_only_scored_goes_without_a_score_where_its_center_is_not_here(tmp_path, small_centers, capsys):
    run = small_run(centers=["CHUM", "CHUP"], steps=["tumour_ct", "tumour_ctpet"], rounds=1)
    chest = run.steps["tumour_ct"]
    chest.rounds, chest.centers, chest.evaluate_at = 0, [], ["CHEST"]
    _check_named_centers(run, list(small_centers))
    assert "Step 'tumour_ct' is only scored; CHEST has no case here" in capsys.readouterr().out
    leader = federate(run, tmp_path, small_centers)
    first, second = leader.ledger.events("step_finished")
    assert not [row for row in first["scores"] if row["value"] is not None]
    assert [row for row in second["scores"] if row["task"] == "tumour_ctpet" and row["value"] is not None]
