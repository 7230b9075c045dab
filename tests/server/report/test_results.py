"""results.json: valid, complete, and silent about what was not checked."""

from __future__ import annotations

import copy
import io
import json

import jsonschema
import pytest

from common.errors import LedgerError
from server.report.console import summary_table
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


def test_bytes_are_listed_per_round_and_center_that_replied(events, validate):
    sent = results(events)["communication"]
    assert len(sent) == 5 * 6 + (6 * 6 - 1) + 4 * 5 + 3  # CHUV failed in one round
    assert {"step": "hmr", "round": 3, "center": "HMR", "bytes_up": 385_128, "bytes_down": 386_928} in sent


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
