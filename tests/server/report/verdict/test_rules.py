"""Bad news by rule: each is said where it is so, and only there."""

from __future__ import annotations

import copy

import pytest

from common.metrics import Estimate
from server.report.reading.record import read_run
from server.report.report import bad_news_of
from server.report.tables import Arm, Comparison
from server.report.verdict.rules import RULES, Evidence, bad_news
from tests.server.report.conftest import _row, run_events


def evidence_of(events: list[dict], **more) -> Evidence:
    run = read_run(events)
    return Evidence(run, Arm(run.arm, run.rows, run.metrics, run.learned(), run.changed_bits), **more)


def said(rule: str, events: list[dict] | None = None, **more) -> list[tuple[str, str]]:
    """(task, sentence) of one rule about the invented run."""
    found = bad_news(evidence_of(run_events() if events is None else events, **more))
    return [(news.task, news.text) for news in found if news.rule == rule]


def last_row(events: list[dict], task: str, center: str = "pooled") -> dict:
    last = next(event for event in reversed(events) if event["kind"] == "step_finished")
    return next(row for row in last["scores"] if (row["task"], row["center"]) == (task, center))


def test_a_run_without_the_fault_is_not_accused_of_it():
    """The invented run has small centers and nothing else that is wrong."""
    events = run_events()
    for event in events:
        if event["kind"] == "step_finished":
            event["scores"] = [row for row in event["scores"] if row["center"] in ("pooled", "MDA")]
            for row in event["scores"]:
                row["n"] = 40
    assert bad_news(evidence_of(events)) == []


def test_every_rule_has_a_test_of_its_own():
    tested = set().union(*(getattr(test, "rules", ()) for test in globals().values() if callable(test)))
    assert tested == set(RULES)


def about(*rules: str):
    def mark(test):
        test.rules = rules
        return test

    return mark


@about("drift")
@pytest.mark.parametrize(
    ("verified", "sentence"),
    [
        (None, "Not verified: nobody has checked that earlier steps still give the same outputs."),
        ({"changed_bits": {"relapse": 12}}, "Something drifted: 12 bits of earlier outputs changed."),
        ({"base_after": "0000"}, "The frozen model is not the one that the run began with."),
    ],
)
def test_drift(verified, sentence):
    events = run_events()
    events = events[:-1] if verified is None else [*events[:-1], events[-1] | verified]
    assert said("drift", events) == [("", sentence)]


@about("no_score")
def test_a_task_without_a_score_says_why():
    events = run_events()
    last_row(events, "relapse").update(value=None, n=None)
    assert said("no_score", events) == [("relapse", "There is no score over all centers (suppressed: too few cases).")]


@about("guessing")
@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"low": 0.49, "high": 0.8}, "C-index 0.664 [0.490, 0.800]: the interval includes guessing (0.5)"),
        ({"low": 0.51, "high": 0.8}, None),
        ({"value": 0.31, "low": 0.2, "high": 0.45}, "is worse than guessing (0.5): the whole interval lies below."),
        ({"value": 0.5}, "C-index 0.500 is no better than guessing (0.5)."),
    ],
)
def test_a_score_that_guessing_reaches(row, words):
    events = run_events()
    last_row(events, "relapse").update(row)
    found = said("guessing", events)
    assert found == [] if words is None else (found[0][0] == "relapse" and words in found[0][1])


@about("guessing")
@pytest.mark.parametrize(("classes", "guessed"), [(2, True), (5, False)])
def test_guessing_among_five_classes_is_a_fifth(classes, guessed):
    events = run_events()
    events[0]["steps"]["chest"] |= {"metric": "balanced_accuracy", "classes": classes}
    for event in events:
        event.get("metrics", {}).update({"chest": "balanced_accuracy"} if "chest" in event.get("metrics", {}) else {})
        for row in event.get("scores", []):
            row |= {"metric": "balanced_accuracy", "value": 0.3} if row["task"] == "chest" else {}
    assert bool(said("guessing", events)) is guessed


@about("nothing_found")
@pytest.mark.parametrize(("value", "is_said"), [(0.0, True), (0.049, True), (0.05, False), (0.8, False)])
def test_a_segmentation_that_finds_nothing(value, is_said):
    events = run_events()
    last_row(events, "tumour_ct").update(value=value)
    found = dict(said("nothing_found", events))
    assert ("tumour_ct" in found) is is_said
    assert not is_said or "next to nothing of what was drawn" in found["tumour_ct"]


@about("structure_missed")
@pytest.mark.parametrize(("value", "is_said"), [(0.0, True), (0.049, True), (0.05, False), (None, False)])
def test_a_structure_that_a_mean_over_structures_hides(value, is_said):
    events = run_events()
    last = next(event for event in reversed(events) if event["kind"] == "step_finished")
    row = last_row(events, "tumour_ct")
    told = [("GTVp", 0.8, "pooled"), ("GTVn", value, "pooled"), ("GTVp", 0.0, "CHUM"), ("ceiling_GTVn", 0.0, "pooled")]
    last["scores"] += [row | {"metric": f"{row['metric']}_{n}", "value": v, "center": c} for n, v, c in told]
    assert said("structure_missed", events) == (
        [("tumour_ct", f"Next to nothing of GTVn is found (Dice {value:.3f}).")] if is_said else []
    )


def judged_by(metric: str, values: dict[str, float]) -> list[dict]:
    """The invented run with ``tumour_ct`` judged by another metric, pooled, and by it of each structure or source."""
    events = run_events()
    events[0]["steps"]["tumour_ct"]["metric"] = metric
    for event in events:
        event.get("metrics", {}).update({"tumour_ct": metric} if "tumour_ct" in event.get("metrics", {}) else {})
        for row in event.get("scores", []):
            row |= {"metric": metric, "value": 0.4} if row["task"] == "tumour_ct" else {}
    last = next(event for event in reversed(events) if event["kind"] == "step_finished")
    row = last_row(events, "tumour_ct")
    last["scores"] += [row | {"metric": f"{metric}_{name}", "value": v} for name, v in values.items() if name]
    row["value"] = values.get("", 0.4)
    return events


@about("nothing_found", "structure_missed")
@pytest.mark.parametrize(
    ("metric", "whole", "part"),
    [
        ("ap", "AP 0.012: hardly any box lies where something was drawn.",
         "Hardly any box lies where CT was drawn (AP 0.000)."),
        ("restored", "restored share 0.012: next to nothing of what was hidden is restored.",
         "Next to nothing of CT is restored (restored share 0.000)."),
    ],
)  # fmt: skip
def test_boxes_that_lie_nowhere_and_a_stage_that_restores_nothing(metric, whole, part):
    """Grounding and self-supervised stages: neither has a guess to be compared with, and both have a zero."""
    assert dict(said("nothing_found", judged_by(metric, {"": 0.012})))["tumour_ct"] == whole
    assert "tumour_ct" not in dict(said("nothing_found", judged_by(metric, {"": 0.05})))
    assert said("structure_missed", judged_by(metric, {"CT": 0.0, "EHR": 0.8})) == [("tumour_ct", part)]
    assert said("structure_missed", judged_by(metric, {"CT": 0.06, "EHR": 0.8})) == []


@about("few_cases")
def test_fewer_than_ten_test_cases():
    events = run_events()
    last_row(events, "relapse")["n"] = 9
    found = dict(said("few_cases", events))
    assert found["relapse"] == "Tested on 9 cases: fewer than ten say next to nothing."
    small = "CHUM (3), CHUP (3), CHUS (4), CHUV (3) and MDA (9)"
    assert (
        found["tumour_ctpet"] == f"Fewer than ten test cases at {small}: what is said of one center there means little."
    )
    assert "chest" not in found  # 24 of CHEST


@about("missing_centers")
def test_a_pooled_score_that_lacks_centers():
    events = run_events()
    last_row(events, "relapse").update(missing=["CHUP", "MDA"], value=None)
    assert said("missing_centers", events) == [
        ("relapse", "The score is not over all centers: CHUP and MDA did not answer.")
    ]
    assert said("no_score", events) == [("relapse", "There is no score over all centers.")]


@about("worse_than_start")
def test_a_step_that_is_worse_than_its_start():
    events = run_events()
    for task, value in (("relapse", 0.7), ("tumour_ct", 0.1)):
        rows = [_row("start", task, "pooled", value, 25)]
        events.insert(2, {"kind": "start_scores", "step": "start", "task": task, "scores": rows})
    assert said("worse_than_start", events) == [
        ("relapse", "Training made the test score worse: C-index 0.664 after the step, 0.700 before it.")
    ]


@about("worse_than_start")
def test_a_step_that_kept_its_start():
    events = run_events()
    next(e for e in events if e["kind"] == "step_finished" and e["step"] == "relapse")["kept_round"] = 0
    [(task, text)] = said("worse_than_start", events)
    assert task == "relapse" and "No round was better than the start" in text


def with_groups(at_risk: list[list[int]], happened: list[list[int]]) -> list[dict]:
    events = run_events()
    for event in events:
        if event["kind"] == "step_finished" and event["curves"]:
            event["curves"] = {"relapse": {"grid_days": [100, 200, 300], "at_risk": at_risk, "events": happened}}
    return events


@about("reversed_groups")
@pytest.mark.parametrize(
    ("at_risk", "happened", "words"),
    [
        ([[20, 14, 8], [20, 18, 16]], [[6, 6, 6], [2, 2, 2]], "The risk groups are reversed: 6 relapses where high"),
        ([[20, 18, 16], [20, 14, 8]], [[2, 2, 2], [6, 6, 6]], None),
        ([[20, 18, 16], [20, 17, 14]], [[2, 2, 2], [3, 3, 3]], "not told apart (log-rank p = 0."),
        ([[20, 20, 20], [20, 20, 20]], [[0, 0, 0], [0, 0, 0]], None),  # nobody relapses
    ],
)
def test_risk_that_runs_the_wrong_way(at_risk, happened, words):
    found = said("reversed_groups", with_groups(at_risk, happened))
    assert found == [] if words is None else (found[0][0] == "relapse" and words in found[0][1])


def test_expected_relapses_are_those_of_the_log_rank_test():
    [(_, text)] = said("reversed_groups", with_groups([[20, 14, 8], [20, 18, 16]], [[6, 6, 6], [2, 2, 2]]))
    assert f"{8 * 20 / 40 + 8 * 18 / 32 + 8 * 16 / 24:.1f} expected by chance" in text


@about("simpler_is_better", "harmed")
def test_simpler_arms_and_harmed_centers():
    def compared(b, value, low, high, a="federated", metric="c_index", note=""):
        return Comparison("relapse", metric, a, b, Estimate(value, low, high, 25), note)

    items = [
        compared("federated Newton", -0.2, -0.3, -0.1),
        compared("local", -0.02, -0.1, 0.05),
        compared("untrained", 0.1, 0.0, 0.2),
        compared("random backbone", 0.3, 0.1, 0.4, metric="nll"),  # less is better
        compared("random backbone", -0.1, -0.2, 0.4),
        compared("centralized", -0.1, -0.2, -0.05),  # not simpler
        compared("local at CHUP", -0.1, -0.2, -0.05, a="federated at CHUP", note="harmed"),
        compared("local at MDA", -0.1, -0.2, 0.05, a="federated at MDA"),
    ]
    assert [text for _, text in said("simpler_is_better", comparisons=items)] == [
        "Federated Newton is better than federated: C-index by 0.200 (the interval excludes 0).",
        "Local is better than federated: C-index by 0.020 (the interval includes 0).",
        "Random backbone is better than federated: nll by 0.300 (the interval excludes 0), C-index by 0.100 (the "
        "interval includes 0).",
    ]
    assert said("harmed", comparisons=items) == [
        ("relapse", "Federated at CHUP is worse off than alone: C-index −0.100 [−0.200, −0.050].")
    ]


@about("forgotten")
def test_forgetting_is_told():
    events = run_events()
    last_row(events, "relapse")["value"] = 0.6
    assert said("forgotten", events) == [("relapse", "It was better once: 0.064 was lost to later steps.")]


def test_intervals_over_patients_go_before_summed_ones():
    row = _row("relapse", "relapse", "pooled", 0.61, 80) | {"low": 0.45, "high": 0.7}
    assert "0.610 [0.450, 0.700]" in said("guessing", patients=[row])[0][1]
    rows = bad_news_of(run_events(), patients=[row])
    assert {"rule", "task", "text"} == set(rows[0]) and rows[0]["rule"] == "guessing"


def test_what_is_suppressed_stops_no_rule():
    events = copy.deepcopy(with_groups([[20, 14, 8], [20, 18, 16]], [[None, 6, 6], [2, 2, 2]]))
    assert said("reversed_groups", events) == []
