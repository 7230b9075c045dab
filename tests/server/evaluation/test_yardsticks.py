"""Yardsticks against CONTINUAL.md's golden matrix, and the one cell that tells the definitions apart."""

from dataclasses import replace

import pytest

from server.evaluation.yardsticks import FORGETTING, of_matrix, yardsticks

GOLDEN = [[80.0, 20.0, 10.0], [60.0, 70.0, 30.0], [75.0, 40.0, 90.0]]
BEFORE, DEDICATED = [5.0] * 3, [80.0, 75.0, 88.0]
OTHER = [*GOLDEN[:2], [85.0, 40.0, 90.0]]


def test_the_golden_matrix():
    found = yardsticks(GOLDEN, before=BEFORE, dedicated=DEDICATED)
    assert found.acc == pytest.approx(68.333, abs=5e-4)
    assert found.bwt == -17.5
    assert found.fwt == 20.0
    assert found.forgetting == 17.5
    assert found.relative_bwt == pytest.approx(-0.24554, abs=5e-6)
    assert found.intransigence == 1.0
    assert found.plasticity == pytest.approx(0.985354, abs=5e-7)
    assert found.intransigence_joint is None
    assert found.stability == pytest.approx((75 / 80 + 40 / 70) / 2)
    assert found.stability == pytest.approx(1 + found.relative_bwt)
    assert found.forward_generalizability == pytest.approx((20 + 10 + 30) / 3)
    against = yardsticks(GOLDEN, joint=[82.0, 74.0, 93.0])
    assert against.intransigence_joint == 3.0
    assert against.plasticity_joint == pytest.approx((80 / 82 + 70 / 74 + 90 / 93) / 3)


@pytest.mark.parametrize("whose", FORGETTING)
def test_on_the_golden_matrix_all_definitions_of_forgetting_agree(whose):
    assert FORGETTING[whose](GOLDEN) == 17.5


@pytest.mark.parametrize(("whose", "value"), [("chaudhry", 12.5), ("gem", 15.0), ("avalanche", 12.5)])
def test_one_cell_tells_them_apart(whose, value):
    assert FORGETTING[whose](OTHER) == value


def test_a_fall_from_a_later_best_tells_the_first_score_from_the_best():
    rows = [[60.0, 0.0, 0.0], [90.0, 50.0, 0.0], [70.0, 50.0, 50.0]]
    assert FORGETTING["chaudhry"](rows) == 10.0 and FORGETTING["avalanche"](rows) == -5.0


def test_one_task_has_nothing_to_forget():
    found = yardsticks([[80.0]], before=[5.0], dedicated=[80.0])
    assert (found.bwt, found.fwt, found.forgetting, found.plasticity) == (None, None, None, 1.0)
    assert (found.stability, found.forward_generalizability) == (None, None)


def named(rows, before=None):
    steps = dict(zip("xyz", rows, strict=True))
    found = {step: dict(zip("abc", row, strict=True)) for step, row in steps.items()}
    return ({"start": dict(zip("abc", before, strict=True))} if before else {}) | found


LEARNED = {"a": "x", "b": "y", "c": "z"}


def test_of_a_score_matrix_they_are_the_same():
    found = of_matrix(named(GOLDEN, BEFORE), ["a", "b", "c"], learned=LEARNED)
    assert found == yardsticks(GOLDEN, before=BEFORE)


def test_of_a_metric_of_which_less_is_better_a_rise_is_forgotten():
    rows = [[-value for value in row] for row in GOLDEN]
    found = of_matrix(named(rows), ["a", "b", "c"], learned=LEARNED, sign=-1)
    assert found.forgetting == 17.5 and found.fwt is None


@pytest.mark.parametrize("missing", [("z", "a"), ("y", "b")])
def test_where_a_score_is_missing_there_is_none(missing):
    matrix = named(GOLDEN)
    matrix[missing[0]][missing[1]] = None
    assert of_matrix(matrix, ["a", "b", "c"], learned=LEARNED) is None


def test_a_step_of_two_tasks_makes_no_square():
    assert of_matrix(named(GOLDEN), ["a", "b", "c"], learned=LEARNED | {"c": "y"}) is None


def test_heads_that_did_not_exist_yet_have_no_forward_transfer_and_all_else_stays():
    lower = [[80.0, None, None], [60.0, 70.0, None], [75.0, 40.0, 90.0]]
    found, whole = yardsticks(lower, before=[5.0, None, None]), yardsticks(GOLDEN)
    assert found.fwt is None and found == replace(whole, fwt=None, forward_generalizability=None)
