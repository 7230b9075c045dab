"""Superseded: after a withdrawal results and report hold the refitted model's scores, and mark the older ones."""

from __future__ import annotations

import copy

import pytest

from server.report.reading.record import read_run
from server.report.reading.superseded import current, replaced
from server.report.report import write_report
from server.report.results import results
from tests.server.report.conftest import _row, run_events


def left(how: str, *more: dict) -> list[dict]:
    """The invented run, after whose last step CHUP leaves the relapse step."""
    event = {"kind": "center_withdrawn", "time": "2026-03-04T11:00:00Z", "center": "CHUP", "steps": {"relapse": how}}
    return [*run_events(), event, *copy.deepcopy(more)]


RESCORED = {
    "kind": "step_rescored",
    "step": "relapse",
    "scores": [_row("relapse", "relapse", "CHUM", 0.7, 3), _row("relapse", "relapse", "pooled", 0.61, 19)],
    "curves": {},
}


def relapse_rows(found: dict) -> list[dict]:
    return [row for row in found["scores"] if row["task"] == "relapse"]


def test_scores_of_a_model_that_is_no_longer_in_use_are_not_shown(tmp_path):
    found = results(left("refit"))
    assert {row["value"] for row in relapse_rows(found)} == {None}
    assert "CHUP" not in {row["center"] for row in relapse_rows(found)}
    assert {row["why"] for row in relapse_rows(found)} == {"fitted again without CHUP and not scored since"}
    old = [row for row in found["superseded"] if row["center"] == "pooled"]
    assert [(row["step"], row["value"], row["without"]) for row in old] == [
        (step, 0.664, ["CHUP"]) for step in ("relapse", "tumour_ct", "tumour_ctpet", "hmr")
    ]
    page = write_report(tmp_path / "report.html", left("refit")).read_text()
    assert "0.664" not in page and "fitted again without CHUP and not scored since" in page
    assert "CHUP has left the run: relapse is fitted without it." in page


def test_the_remaining_centers_scores_take_their_place_in_every_block():
    found = results(left("subtracted", RESCORED))
    pooled = [(row["step"], row["value"], row["n"]) for row in relapse_rows(found) if row["center"] == "pooled"]
    assert pooled == [(step, 0.61, 19) for step in ("relapse", "tumour_ct", "tumour_ctpet", "hmr")]
    assert found["summary"]["federated"]["tasks"]["relapse"]["forgetting"] == 0
    assert len(found["superseded"]) == 4 * 8
    others = [row for row in results(run_events())["scores"] if row["task"] != "relapse"]
    assert [row for row in found["scores"] if row["task"] != "relapse"] == others
    assert read_run(left("subtracted", RESCORED)).curves == {}  # the old model's curves are gone too


def test_what_cannot_be_undone_keeps_its_scores_and_the_page_says_so(tmp_path):
    found = results(left("trained"))
    assert found["superseded"] == [] and found["scores"] == results(run_events())["scores"]
    page = write_report(tmp_path / "report.html", left("trained")).read_text()
    assert "CHUP has left the run: relapse was trained with it by averaging, which cannot be undone." in page


def test_a_second_withdrawal_takes_the_first_ones_scores_away_again():
    second = {"kind": "center_withdrawn", "center": "MDA", "steps": {"relapse": "refit"}}
    found = results(left("refit", RESCORED, second))
    assert {row["value"] for row in relapse_rows(found)} == {None}
    assert {row["why"] for row in relapse_rows(found)} == {"fitted again without CHUP, MDA and not scored since"}


@pytest.mark.parametrize("later", [False, True])
def test_a_block_that_was_scored_after_the_rescoring_is_left_alone(later):
    events = [
        {"kind": "step_finished", "step": "a"},
        {"kind": "center_withdrawn", "center": "X", "steps": {"a": "refit"}},
        {"kind": "step_rescored", "step": "a", "scores": [{"step": "a", "task": "a", "center": "pooled", "value": 2}]},
    ]
    events.insert(3 if later else 1, {"kind": "step_finished", "step": "b"})
    rows = [{"step": s, "task": "a", "center": "pooled", "value": 1} for s in ("start", "a", "b")]
    kept, old = current(rows, replaced(events))
    assert [row["value"] for row in kept] == [1, 2, 1 if later else 2] and len(old) == 2 - later
