"""What a plain run's report compares prognosis with: the exact linear fit, on the same test patients."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import jsonschema
import numpy as np
import pytest

from common.errors import DataError
from server.evaluation.matrix import POOLED
from server.report.results import SCHEMA
from server.run.finish import made_of, write_outputs
from simulations.comparison import reference_arms
from simulations.comparison.kept import observed_of
from simulations.comparison.names import EXACT
from simulations.comparison.overlays import overlays_of
from simulations.comparison.patients import Observed, open_centers
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


def test_a_segmentation_has_intervals_over_its_patients_in_results_and_report(run_and_leader):
    _, leader = run_and_leader
    rows = json.loads(leader.folder.results.read_text())["scores"]
    mine = [row for row in rows if (row["task"], row["center"]) == ("tumour_ct", POOLED)]
    summed = {row["metric"]: row for row in mine if row["arm"] == "federated" and row["step"] == "tumour_ct"}
    for metric in ("dsc_agg", "dice", "surface_dice", "lesion_f1"):
        assert summed[metric]["low"] <= summed[metric]["value"] <= summed[metric]["high"]
    [farthest] = [row for row in mine if row["arm"] == "patients"]
    assert farthest["metric"] == "hd95" and farthest["low"] <= farthest["value"] <= farthest["high"]
    low, high = (f"{summed['dsc_agg'][end]:.3f}" for end in ("low", "high"))
    page = leader.folder.report.read_text()
    assert f"aggregated Dice {summed['dsc_agg']['value']:.3f} [{low}, {high}]" in page and f"{low} to {high}" in page


def test_pictures_are_of_the_test_patients_that_were_scored(run_and_leader):
    run, leader = run_and_leader
    found = overlays_of(run, leader.folder)
    assert [one.title.split(" of ")[0] for one in found] == ["best", "median", "worst"]
    assert all("Dice 0." in one.title and one.png.startswith(b"\x89PNG") for one in found)


def test_test_patients_are_scored_once_and_anew_after_a_center_left(run_and_leader, monkeypatch):
    run, leader = run_and_leader
    [event] = leader.ledger.events("step_finished", step="tumour_ct")
    kept = observed_of(run, leader.folder, event)
    monkeypatch.setattr("simulations.comparison.kept.observe", lambda *a, **k: pytest.fail("scored again"))
    assert [one.patient for one in observed_of(run, leader.folder, event)] == [one.patient for one in kept]
    monkeypatch.setattr("simulations.comparison.kept.observe", lambda *a, **k: [])
    monkeypatch.setattr("simulations.comparison.kept.withdrawn", lambda ledger: ["MDA"])
    content = leader.folder.records(event["key"]).read_bytes()
    assert observed_of(run, leader.folder, event) == []
    leader.folder.records(event["key"]).write_bytes(content)


def test_a_center_whose_data_cannot_be_read_costs_only_itself(run_and_leader, monkeypatch):
    run, leader = run_and_leader
    [event] = leader.ledger.events("step_finished", step="tumour_ct")

    def observe(run, step, state, centers, **kept):
        [center] = centers
        if center.code == "CHUP":
            raise DataError(["no usable case"])
        return [Observed(center.code, "1", {"truth": np.zeros(2)})]

    monkeypatch.setattr("simulations.comparison.kept.observe", observe)
    path = leader.folder.records(event["key"])
    content = path.read_bytes()
    path.unlink()
    assert [one.center for one in observed_of(run, leader.folder, event)] == ["CHUM", "MDA"]
    path.write_bytes(content)


def test_what_was_made_of_other_models_is_out_of_date(run_and_leader):
    events = run_and_leader[1].ledger.events()
    keys = [event["key"] for event in events if event["kind"] == "step_finished"]
    assert made_of(events) == keys
    left = {"kind": "center_withdrawn", "center": "MDA", "steps": {}}
    assert made_of([*events, left]) == [*keys, "MDA"]
    assert made_of([*events, left, {"kind": "step_refitted", "key": "k"}])[-1] == "k"


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
    beside = json.loads(leader.folder.comparison.read_text())
    assert beside["comparisons"] == beside["scores"] == [] and {r["task"] for r in beside["patients"]} == {"tumour_ct"}
    assert "Nothing simpler is compared with" not in leader.folder.report.read_text()


def test_without_it_the_report_says_what_is_missing(small_centers, tmp_path):
    _, leader = finished(tmp_path, small_centers)
    write_outputs(leader.folder.path)
    assert "Nothing simpler is compared with relapse" in leader.folder.report.read_text()
