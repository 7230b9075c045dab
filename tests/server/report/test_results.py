"""results.json: valid, complete, and silent about what was not checked."""

from __future__ import annotations

import copy
import io
import json

import jsonschema
import pytest

from common.errors import LedgerError
from server.report.console import summary_table
from server.report.reading.traffic import bytes_of_rounds, total, typical_bytes
from server.report.results import NOT_VERIFIED, SCHEMA, merge_results, results, write_results


@pytest.fixture
def validate():
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    return jsonschema.Draft202012Validator(schema).validate


def arm(events: list[dict], name: str, shift: float = 0.0, fold: int | None = None) -> list[dict]:
    changed = copy.deepcopy(events)
    changed[0]["arm"] = name
    for event in changed:
        for row in event.get("scores", []):
            row |= {} if fold is None else {"fold": fold}
            row["value"] = None if row["value"] is None else row["value"] + shift
    return changed


def test_a_run_is_valid_and_says_what_happened(events, validate):
    found = results(events)
    validate(found)
    federated = found["summary"]["federated"]
    assert federated["changed_bits"] == 0
    assert federated["tasks"]["relapse"]["average"] == 0.664
    assert federated["tasks"]["relapse"]["forgetting"] == 0
    assert federated["tasks"]["tumour_ct"]["worst_center"] == "CHUP"
    assert federated["tasks"]["hmr"]["forgetting"] is None
    assert found["base"] == {"root": "9f3c" * 16, "before": "b1a5" * 16, "after": "b1a5" * 16, "bytes": 7_499_776}
    assert found["adapters"]["hmr"] == "4" * 16 and "chest" not in found["adapters"]


def test_the_minimums_that_held_stand_with_the_data(events):
    events[0]["data"] |= {"minimum_cases": 5, "minimum_cell": 4}
    data = results(events)["data"]
    assert (data["minimum_cases"], data["minimum_cell"]) == (5, 4)


def test_bytes_are_listed_per_round_and_center_that_replied(events, validate):
    sent = results(events)["communication"]
    assert len(sent) == 5 * 6 + (6 * 6 - 1) + 4 * 5 + 3  # CHUV failed in one round
    row = {"step": "hmr", "phase": "rounds", "round": 3, "center": "HMR", "bytes_up": 385_128, "bytes_down": 386_928}
    assert row in sent


def test_bytes_outside_rounds_have_their_own_phase(events):
    sent = {"HMR": {"up": 30, "down": 200}}
    own = {"step": "hmr", "bytes": sent}
    more = [
        {"kind": "grid_chosen", **own},
        {"kind": "step_started", "centers": ["HMR"], **own},
        {"kind": "scored", **own},
        {"kind": "start_validated", "round": 0, **own},
        {"kind": "scored", **own},
        {"kind": "newton_round", "round": 2, **own},
        {"kind": "step_refitted", **own},
    ]
    rows = results([*events, *more])["communication"]
    rounds = results(events)["communication"]
    assert [row for row in rows if row["phase"] == "rounds"] == rounds
    assert [(r["phase"], r["round"], r["bytes_up"], r["bytes_down"]) for r in rows if r not in rounds] == [
        ("enrol", 0, 90, 600),
        ("start", 0, 30, 200),
        ("sums", 2, 30, 200),
        ("test", 0, 60, 400),
    ]
    assert total(rows) == total(rounds) + 7 * 230


def test_bytes_of_newcomers_and_of_a_failed_attempt_are_counted(events):
    rounds = [e for e in events if e["kind"] == "round_finished" and e["step"] == "hmr"]
    rounds[0]["joining_bytes"] = {"CHUP": {"up": 5, "down": 7}}
    began = next(i for i, e in enumerate(events) if e is rounds[0])
    failed = [*events[:began], rounds[0], {"kind": "step_failed", "step": "hmr"}, *events[began:]]
    rows = results(failed)["communication"]
    own = {"step": "hmr", "center": "HMR", "bytes_up": 385_128, "bytes_down": 386_928}
    assert [row for row in rows if row["phase"] == "repeated"] == [own | {"phase": "repeated", "round": 1}]
    assert [row for row in rows if row["phase"] == "rounds"] == [
        row for row in results(events)["communication"] if row["phase"] == "rounds"
    ]
    [joined] = [row for row in rows if row["phase"] == "enrol"]
    assert (joined["center"], joined["bytes_up"], joined["bytes_down"]) == ("CHUP", 10, 14)  # asked in both attempts


def test_seconds_add_up_over_rounds(events):
    seconds = results(events)["seconds"]
    assert seconds["train"] == pytest.approx(18 * 6.2)
    assert seconds["total"] == pytest.approx(5 * 4.0 + 18 * 8.1 + 9.4)


def test_suppressed_scores_stay_null_with_their_reason_in_n(events):
    rows = [r for r in results(events)["scores"] if r["task"] == "relapse" and r["step"] == "hmr"]
    assert {r["center"]: (r["value"], r["n"]) for r in rows if r["value"] is None} == {
        "HGJ": (None, 3),
        "HMR": (None, None),
    }


def test_an_unverified_run_claims_no_number_of_changed_bits(events, validate):
    found = results(events[:-1])
    validate(found)
    assert found["summary"] == {} and found["base"]["after"] == NOT_VERIFIED


def test_drifted_bits_are_added_over_steps(events):
    events[-1]["changed_bits"] = {"relapse": 3, "tumour_ct": 4}
    assert results(events)["summary"]["federated"]["changed_bits"] == 7


def test_a_resumed_run_counts_a_repeated_round_and_step_once(events):
    position = next(i for i, e in enumerate(events) if e["kind"] == "step_finished" and e["step"] == "relapse")
    resumed = [*events[: position + 1], *events[position - 1 :]]
    assert results(resumed) == results(events)


def test_arms_stand_side_by_side(events, validate):
    parts = [results(events), results(arm(events, "centralized", 0.01), kind="centralized")]
    found = merge_results(parts, name="quickstart")
    validate(found)
    assert set(found["summary"]) == {"federated", "centralized"}
    assert found["summary"]["centralized"]["tasks"]["relapse"]["average"] == pytest.approx(0.674)
    assert {row["arm"] for row in found["scores"]} == {"federated", "centralized"}
    assert found["adapters"]["centralized/hmr"] == "4" * 16


def test_folds_of_one_arm_are_averaged_and_their_bits_added(events, validate):
    folds = [arm(events, "federated", shift, fold) for fold, shift in enumerate((-0.02, 0.04))]
    folds[1][-1]["changed_bits"]["hmr"] = 2
    found = merge_results([results(f) for f in folds], name="sts7")
    validate(found)
    assert found["summary"]["federated"]["tasks"]["relapse"]["average"] == pytest.approx(0.674)
    assert found["summary"]["federated"]["changed_bits"] == 2
    assert "federated#2/relapse" in found["adapters"]


def test_what_is_written_is_read_back(events, tmp_path):
    content = results(events)
    path = write_results(tmp_path / "run" / "results.json", content)
    assert json.loads(path.read_text(encoding="utf-8")) == content


def test_a_nan_is_refused_rather_than_written(events, tmp_path):
    content = results(events)
    content["scores"][0]["value"] = float("nan")
    with pytest.raises(ValueError):
        write_results(tmp_path / "results.json", content)


def test_events_that_are_no_run_are_refused(events):
    with pytest.raises(LedgerError, match="run_started"):
        results(events[1:])


def test_the_terminal_table_has_a_line_per_task(events):
    from rich.console import Console

    table = summary_table(results(events))
    screen = io.StringIO()
    Console(width=120, file=screen).print(table)
    text = screen.getvalue()
    assert table.row_count == 5
    assert "CHUS 0.591" in text and "changed bits: federated 0" in text and "base: unchanged" in text


def test_bytes_of_rounds_and_what_is_typical_of_one():
    rounds = [{"CHUM": {"up": 10, "down": 1}, "MDA": {"up": 20, "down": 1}}, {}, {"CHUM": {"up": 40, "down": 3}}]
    events = [{"kind": "round_finished", "step": "a", "bytes": sent} for sent in rounds]
    events += [
        {"kind": "round_finished", "step": "b", "bytes": rounds[0]},
        {"kind": "scored", "step": "a", "bytes": {}},
    ]
    assert bytes_of_rounds(events, "a", "up") == [[10, 20], [40]] and bytes_of_rounds(events, "c", "up") == []
    assert typical_bytes(events, "a", "up") == 27.5 and typical_bytes(events, "c", "up") is None
