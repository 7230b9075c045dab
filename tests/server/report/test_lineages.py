"""A lineage that several steps wrote is a row of yardsticks; one that a single step wrote is none."""

import pytest

from server.report.lineages import lineages
from server.report.reading.record import read_run
from server.report.results import results
from server.report.tables import Arm


def found(events):
    run = read_run(events)
    return lineages(run, Arm("federated", run.rows, run.metrics, run.learned()))


def shared(events, *, now):
    """Tumours on CT and on CT and PET in one lineage; the second step leaves another pooled score of the first."""
    for event in events:
        if event["kind"] == "step_finished" and event["step"] in ("tumour_ct", "tumour_ctpet"):
            event["lineage"] = "tumor"
        elif event["kind"] == "step_finished":
            event["lineage"] = event["step"]
        for row in event.get("scores", []):
            later = event.get("step") not in ("start", "tumour_ct")
            if (row["task"], row["center"]) == ("tumour_ct", "pooled") and later:
                row["value"] = now
    return events


def test_a_step_alone_in_its_lineage_has_no_row(events):
    assert found(events) == []


def test_two_steps_of_one_lineage_are_one_row(events):
    [row] = found(shared(events, now=0.407))
    assert (row["name"], row["tasks"], row["acc"]) == ("tumor", 2, "0.544")
    assert (row["bwt"], row["forgetting"]) == ("−0.100", "0.100")
    assert row["relative_bwt"] == "−0.197" and row["fwt"] == "—"
    assert row["stability"] == "0.803" and row["forward"] == "—"


def test_results_hold_them_as_numbers_with_each_steps_course(events):
    found = results(shared(events, now=0.407))
    [row] = found["lineages"]
    assert (row["arm"], row["name"], row["tasks"]) == ("federated", "tumor", 2)
    assert row["yardsticks"]["forgetting"] == pytest.approx(0.1, abs=5e-4) and row["yardsticks"]["plasticity"] is None
    assert all(0 <= row["rounds_to_95"] <= row["rounds"] and 0 < row["area"] < 1 for row in found["training"])


def test_parameters_and_replay_are_shares_and_unknown_where_nothing_says_them(events):
    [row] = found(shared(events, now=0.407))
    begun = next(event for event in events if event["kind"] == "run_started")
    assert row["replay"] == "0%"
    begun["steps"]["tumour_ctpet"]["rehearses"] = {"share": 0.5}
    begun["backbone"]["parameters"] = 0
    [row] = found(shared(events, now=0.407))
    assert row["parameters"] == "—" and row["replay"] == "27%"
