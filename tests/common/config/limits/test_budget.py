"""Budgets in steps or cases: what a round costs, how many rounds follow, and what rounds that happened have spent."""

from __future__ import annotations

import pytest

from common.config.limits.budget import Budget, Spent, budget_of, round_of, spent, with_rounds
from common.config.load import step_from_json, step_to_json
from common.config.step import Step
from common.config.task import SegmentationTask
from common.config.training import Training
from common.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "means"),
    [("500 steps", Budget(500, "steps")), ("2000 cases", Budget(2000, "cases")), (" 1  steps ", Budget(1, "steps"))],
)
def test_what_may_be_written(text, means):
    assert budget_of(text) == means


@pytest.mark.parametrize("text", ["500", "steps", "0 steps", "-1 steps", "1.5 steps", "500 rounds", "5e2 steps"])
def test_what_is_refused_with_the_two_forms(text):
    with pytest.raises(ConfigError, match="'500 steps' or '2000 cases'"):
        budget_of(text)


def test_a_round_takes_the_largest_centers_steps_and_everyones_cases():
    training = Training(epochs=2, batch=4)
    assert round_of(training, [9, 4, 1]) == Spent(steps=2 * 3, cases=2 * 14)
    assert round_of(training, [0, 0]) == Spent()


@pytest.mark.parametrize(
    ("budget", "rounds"), [("36 steps", 6), ("37 steps", 7), ("1 steps", 1), ("28 cases", 1), ("29 cases", 2)]
)
def test_rounds_follow_from_the_budget_and_never_spend_less(budget, rounds):
    step = Step(rounds=3, budget=budget, training=Training(epochs=2, batch=4))
    assert with_rounds(step, [9, 4, 1]).rounds == rounds


def test_without_a_budget_rounds_count_and_an_evaluated_step_stays_one():
    assert with_rounds(Step(rounds=3), [9]).rounds == 3
    assert with_rounds(Step(rounds=0, budget="9 steps"), [9]).rounds == 0


def test_what_rounds_have_spent_leaves_void_ones_out():
    rounds = [
        {"void": False, "train": {"A": {"steps": 3, "cases": 9, "seen": 18}, "B": {"steps": 5, "cases": 4, "seen": 8}}},
        {"void": True, "train": {"A": {"steps": 3, "cases": 9, "seen": 18}}},
        {"void": False, "train": {"A": {"steps": 3, "cases": 9, "seen": 18}}},
    ]
    assert spent(rounds) == Spent(steps=5 + 3, cases=18 + 8 + 18)
    assert str(spent(rounds)) == "8 optimizer steps in a row, 44 cases seen"


def test_a_step_without_a_budget_keeps_the_json_that_it_had():
    step = Step(name="s", task=SegmentationTask())
    assert "budget" not in step_to_json(step)
    step.budget = "9 steps"
    assert step_from_json(step_to_json(step)).budget == "9 steps"
