"""What a plain run's report compares prognosis with: the exact linear fit, on the same test patients."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import jsonschema
import pytest

from server.evaluation.matrix import POOLED
from server.report.results import SCHEMA
from server.run.finish import write_outputs
from simulations.comparison import reference_arms
from simulations.comparison.names import EXACT
from simulations.comparison.patients import open_centers
from simulations.comparison.recorded.exact_arm import exact_step, observe_exact
from simulations.comparison.reference_arms import write_comparison
from tests.helpers.small import federate, small_run

CENTERS = ["CHUM", "CHUP", "MDA"]


def finished(folder, files, *, exact=False, **grid):
    """A one-round run whose folder knows its centers, as a simulation's does."""
    run = small_run(centers=CENTERS, steps=["relapse", "tumour_ct"], rounds=1)
    step = run.steps["relapse"]
    step.modalities = ["CT", "EHR"]
    for name, value in grid.items():
        setattr(step.task, name, value)
    if exact:
        run.steps["relapse"] = replace(exact_step(step), rounds=20)
    leader = federate(run, folder, files)
    leader.folder.centers.mkdir(exist_ok=True)
    for code in CENTERS:
        shutil.copy(files[code], leader.folder.centers)
    return run, leader


@pytest.fixture(scope="module")
def run_and_leader(small_centers, tmp_path_factory):
    run, leader = finished(tmp_path_factory.mktemp("run"), small_centers)
    write_comparison(run, leader.folder)
    write_outputs(leader.folder.path)
    return run, leader


def test_the_report_and_the_results_hold_the_exact_fit_and_the_difference(run_and_leader):
    _, leader = run_and_leader
    found = json.loads(leader.folder.results.read_text())
    jsonschema.validate(found, json.loads(SCHEMA.read_text()))
    rows = [row for row in found["scores"] if row["arm"] == EXACT]
    assert {row["task"] for row in rows} == {"relapse"} and {row["metric"] for row in rows} == {"c_index"}
    assert {row["center"] for row in rows} == {POOLED, *CENTERS}
    [difference] = found["comparisons"]
    [pooled] = [row for row in rows if row["center"] == POOLED]
    assert (difference["b"], difference["n"]) == (EXACT, pooled["n"])
    page = leader.folder.report.read_text()
    assert page.count(EXACT) >= 2 and "Nothing simpler is compared with" not in page


def test_its_patients_are_the_test_patients_of_the_federation(run_and_leader):
    run, leader = run_and_leader
    centers = open_centers({path.stem: path for path in leader.folder.centers.glob("*.yaml")})
    observed = observe_exact(run, run.steps["relapse"], trained=centers, evaluated=centers, base=leader.base)
    [event] = leader.ledger.events("step_finished", step="relapse")
    counted = {row["center"]: row["n"] for row in event["scores"] if row["metric"] == "c_index"}
    assert len(observed) == counted[POOLED]


def test_it_is_fitted_once(run_and_leader, monkeypatch):
    run, leader = run_and_leader
    monkeypatch.setattr(reference_arms, "observe_exact", lambda *a, **k: pytest.fail("fitted again"))
    write_comparison(run, leader.folder)


def test_a_grid_that_the_run_chose_is_followed(small_centers, tmp_path):
    run, leader = finished(tmp_path, small_centers, grid="quantiles", cuts_days=[], bins=3)
    assert leader.ledger.events("grid_chosen")
    write_comparison(run, leader.folder)
    assert leader.folder.comparison.exists()


def test_an_exact_step_needs_no_reference_arm(small_centers, tmp_path):
    run, leader = finished(tmp_path, small_centers, exact=True)
    write_comparison(run, leader.folder)
    write_outputs(leader.folder.path)
    assert not leader.folder.comparison.exists()
    assert "Nothing simpler is compared with" not in leader.folder.report.read_text()


def test_without_it_the_report_says_what_is_missing(small_centers, tmp_path):
    _, leader = finished(tmp_path, small_centers)
    write_outputs(leader.folder.path)
    assert "Nothing simpler is compared with relapse" in leader.folder.report.read_text()
