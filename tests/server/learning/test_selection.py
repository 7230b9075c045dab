"""Which round is kept: the best value, of equals the lower loss, then the latest; one rule for everyone."""

import pytest

from common.config.step import is_validated
from server.learning.selection import Score, best, best_round, score_of, score_of_round
from tests.helpers.small import small_run


def event(number, pooled, metric="dice"):
    return {"round": number, "validation": {"metric": metric, "pooled": pooled}}


def test_the_start_is_kept_if_no_round_is_better_and_of_equals_the_lower_loss():
    def with_loss(number, pooled, loss):
        return {"round": number, "validation": {"metric": "dice", "pooled": pooled, "loss": loss}}

    assert best_round([with_loss(0, 0.5, 1.0), with_loss(1, 0.4, 0.1), with_loss(2, 0.4, 0.1)])["round"] == 0
    assert best_round([with_loss(0, 0.5, 1.0), with_loss(1, 0.5, 0.9), with_loss(2, 0.5, 0.95)])["round"] == 1
    assert best_round([with_loss(0, 0.5, 1.0), with_loss(1, 0.5, 1.0)])["round"] == 1


@pytest.mark.parametrize(
    ("values", "kept"),
    [([0.1, 0.3, 0.2], 2), ([0.3, 0.3], 2), ([None, 0.0, None], 2), ([None, None], 2), ([-1.0, -2.0], 1)],
)
def test_the_best_validation_value_is_kept_the_latest_of_equals(values, kept):
    assert best_round([event(i, value) for i, value in enumerate(values, start=1)])["round"] == kept


def test_of_losses_the_smallest_is_kept():
    losses = [event(1, 0.5, "loss"), event(2, 0.2, "loss"), event(3, 0.4, "loss")]
    assert best_round(losses)["round"] == 2


@pytest.mark.parametrize(
    ("values", "kept"),
    [
        ([0.0, 0.1, 0.3, 0.3], 3),
        ([None, None, 0.2, None], 2),
        ([None, None, None], 2),
        ([None], 0),
        ([0.4, 0.3, 0.1], 0),
        ([0.4, 0.4], 1),
    ],
)
def test_the_best_round_is_kept_the_latest_of_equals_the_start_being_one(values, kept):
    assert best([None if value is None else Score(value, -1.0) for value in values]) == kept


def test_of_equal_values_the_lower_loss_is_kept():
    assert best([Score(0.5, -1.0), Score(0.5, -0.8), Score(0.5, -0.9)]) == 1


def test_a_metric_that_is_better_when_it_is_lower_changes_its_sign():
    assert score_of("ibs", 0.2, 0.7) == Score(-0.2, -0.7) and score_of("dice", 0.2, 0.7) == Score(0.2, -0.7)
    assert score_of("dice", 0.2, None) == Score(0.2, 0.0) and score_of("dice", None, 0.7) is None
    assert score_of_round(event(3, 0.4, "loss")) == score_of("loss", 0.4, None)


def test_the_start_every_second_and_the_last_round_are_validated():
    step = small_run(steps=["tumour_ct"], rounds=5).steps["tumour_ct"]
    step.selection.every = 2
    assert [number for number in range(6) if is_validated(step, number)] == [0, 2, 4, 5]
