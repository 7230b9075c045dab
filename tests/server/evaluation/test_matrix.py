"""The score matrix on numbers small enough to work out by hand."""

from __future__ import annotations

import pytest

from common.errors import LedgerError
from server.evaluation.matrix import (
    Column,
    as_it_stands,
    columns,
    final_scores,
    score_matrix,
    steps_of,
    summary,
    with_intervals,
    without_counterpart,
    worst_center,
)

DICE = {"a": "dice", "b": "dice", "c": "dice"}


def row(step: str, task: str, value: float | None, center: str = "pooled", **more: object) -> dict:
    return {"step": step, "task": task, "metric": "dice", "center": center, "mode": "CT", "value": value, "n": 5} | more


@pytest.fixture
def sequential() -> list[dict]:
    """One head that moves: every task can be scored at every step, also before it was learned."""
    scores = {
        "start": (0.10, 0.20, 0.30),
        "one": (0.80, 0.25, 0.30),
        "two": (0.60, 0.70, 0.45),
        "three": (0.50, 0.75, 0.90),
    }
    return [row(step, task, value) for step, values in scores.items() for task, value in zip(DICE, values, strict=True)]


LEARNED = {"a": "one", "b": "two", "c": "three"}


def test_the_matrix_reads_step_by_task(sequential):
    matrix = score_matrix(sequential, DICE)
    assert list(matrix) == ["start", "one", "two", "three"]
    assert matrix["two"] == {"a": 0.60, "b": 0.70, "c": 0.45}


def test_start_comes_first_wherever_its_rows_stand():
    assert steps_of([row("one", "a", 1.0), row("start", "a", 0.5)]) == ["start", "one"]


def test_summary_equals_the_numbers_worked_out_by_hand(sequential):
    found = summary(sequential, DICE, learned=LEARNED)
    tasks = found["tasks"]
    assert [tasks[t]["average"] for t in DICE] == [0.50, 0.75, 0.90]
    assert tasks["a"]["bwt"] == pytest.approx(0.50 - 0.80)
    assert tasks["b"]["bwt"] == pytest.approx(0.75 - 0.70)
    assert tasks["c"]["bwt"] is None  # learned last
    assert tasks["a"]["forgetting"] == pytest.approx(0.80 - 0.50)
    assert tasks["b"]["forgetting"] == pytest.approx(0.70 - 0.75)  # a gain is negative forgetting
    assert tasks["a"]["fwt"] is None  # the first task has nothing before it
    assert tasks["b"]["fwt"] == pytest.approx(0.25 - 0.20)
    assert tasks["c"]["fwt"] == pytest.approx(0.45 - 0.30)
    assert found["average"] == pytest.approx((0.50 + 0.75 + 0.90) / 3)
    assert found["bwt"] == pytest.approx((-0.30 + 0.05) / 2)
    assert found["forgetting"] == pytest.approx((0.30 - 0.05) / 2)
    assert found["fwt"] == pytest.approx((0.05 + 0.15) / 2)


def test_forgetting_takes_the_best_step_not_the_first():
    rows = [row("one", "a", 0.6), row("two", "a", 0.9), row("three", "a", 0.7)]
    task = summary(rows, {"a": "dice"})["tasks"]["a"]
    assert task["forgetting"] == pytest.approx(0.2)
    assert task["bwt"] == pytest.approx(0.1)


def test_isolated_tasks_forget_exactly_nothing_and_have_no_forward_transfer():
    rows = [row("one", "a", 0.7), row("two", "a", 0.7), row("two", "b", 0.3)]
    found = summary(rows, {"a": "dice", "b": "dice"})
    assert found["tasks"]["a"]["forgetting"] == 0 and found["tasks"]["a"]["bwt"] == 0
    assert found["tasks"]["b"]["forgetting"] is None and found["tasks"]["b"]["fwt"] is None
    assert score_matrix(rows, {"a": "dice", "b": "dice"})["one"]["b"] is None


def test_a_lucky_untrained_start_is_not_something_to_forget():
    rows = [row("start", "a", 0.9), row("one", "a", 0.5), row("two", "a", 0.5)]
    assert summary(rows, {"a": "dice"}, learned={"a": "one"})["tasks"]["a"]["forgetting"] == 0


def test_a_metric_of_which_less_is_better_turns_its_signs():
    rows = [row("one", "a", 3.0, metric="hd95"), row("two", "a", 5.0, metric="hd95")]
    rows += [row("two", "a", v, center=c, metric="hd95") for c, v in (("CHUM", 4.0), ("MDA", 6.0))]
    task = summary(rows, {"a": "hd95"})["tasks"]["a"]
    assert (task["bwt"], task["forgetting"], task["worst_center"], task["worst"]) == (-2.0, 2.0, "MDA", 6.0)


def test_the_worst_center_is_taken_after_the_last_step_and_skips_suppressed_ones():
    rows = [row("one", "a", 0.1, "MDA"), row("two", "a", 0.6, "MDA"), row("two", "a", 0.5, "CHUM")]
    rows += [row("two", "a", None, "HMR"), row("two", "a", 0.55)]
    column = columns(rows, {"a": "dice"})[0]
    assert worst_center(rows, column) == ("CHUM", 0.5)
    assert summary(rows, {"a": "dice"})["tasks"]["a"]["center_mean"] == pytest.approx(0.55)


def test_worst_and_mean_are_over_the_centers_of_the_pooled_row():
    rows = [row("two", "a", 0.8, "CHUM"), row("two", "a", 0.9, "MDA"), row("two", "a", 0.85)]
    late = row("two", "a", 0.1, "HMR", joined=True)
    found = summary([*rows, late], {"a": "dice"})["tasks"]["a"]
    assert (found["worst_center"], found["worst"], found["average"]) == ("CHUM", 0.8, 0.85)
    assert found["center_mean"] == pytest.approx(0.85)


def test_a_task_seen_in_two_modes_has_two_columns_and_the_fuller_keeps_the_name():
    rows = [row("one", "a", 0.4), row("one", "a", 0.6, mode="CT+PET")]
    assert columns(rows, {"a": "dice"}) == [
        Column("a (CT)", "a", "dice", "CT"),
        Column("a", "a", "dice", "CT+PET"),
    ]
    assert score_matrix(rows, {"a": "dice"}) == {"one": {"a (CT)": 0.4, "a": 0.6}}


def test_folds_are_averaged_and_their_cases_added():
    rows = [row("one", "a", 0.4, fold=0), row("one", "a", 0.6, fold=1), row("one", "a", None, fold=2)]
    merged = final_scores(rows, columns(rows, {"a": "dice"})[0])["pooled"]
    assert (merged["value"], merged["n"]) == (0.5, 15)


def test_two_scores_for_one_cell_are_refused_with_the_cell_named():
    with pytest.raises(LedgerError, match=r"step 'one', task 'a'.*center 'pooled'"):
        score_matrix([row("one", "a", 0.4), row("one", "a", 0.5)], {"a": "dice"})


def test_no_scores_give_no_numbers():
    found = summary([], {"a": "dice"})
    assert found["tasks"]["a"]["average"] is None and found["forgetting"] is None


def test_intervals_over_patients_stand_beside_their_own_score_only():
    def row(value, center="pooled", metric="dice", **more):
        return {"step": "s", "task": "t", "metric": metric, "center": center, "value": value, "n": 9, **more}

    patients = [row(0.5, low=0.4, high=0.6), row(0.7, "A", low=0.6, high=0.8), row(3.0, metric="hd95", low=1, high=9)]
    summed = [row(0.5 + 1e-12), row(0.71, "A"), row(None, "B"), row(0.2, metric="dsc_agg")]
    found = with_intervals(summed, patients)
    assert found == [summed[0] | {"low": 0.4, "high": 0.6}, *summed[1:]]
    assert without_counterpart(patients, summed) == [patients[2]]
    assert as_it_stands(patients, summed) == [patients[0], patients[2]]  # center A's sums say otherwise
    later = row(0.3) | {"step": "later"}
    assert as_it_stands(patients, [*summed, later]) == []  # a later step changed it
    assert as_it_stands([row(0.5, "B"), row(None, "C")], [*summed, row(None, "C")]) == [row(None, "C")]
