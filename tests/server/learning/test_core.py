"""The loop without messages: the rule's own result, void rounds leave the model, the validation rule chooses."""

import pytest
import torch

from common.config.federation import MeanFederation
from common.errors import TooFewUpdates
from server.aggregation.types import Setting, Update
from server.learning.core import aggregated, learn, quorum
from server.learning.selection import Score

SETTING = Setting(MeanFederation(weighting="n"))


def moved(state, *steps):
    return [Update(f"C{i}", {"a/w": state["a/w"] + step}, 1.0) for i, step in enumerate(steps)]


def test_every_round_begins_where_the_last_ended():
    course = learn(
        {"a/w": torch.zeros(2)},
        3,
        train=lambda number, state: moved(state, 1.0, 3.0),
        setting=lambda number: SETTING,
        score=lambda number, state: Score(-abs(float(state["a/w"][0]) - 4.0), 0.0),
    )
    assert [float(state["a/w"][0]) for state in course.states] == [0.0, 2.0, 4.0, 6.0]
    assert course.best == 2


def test_a_round_with_too_few_updates_changes_nothing():
    course = learn(
        {"a/w": torch.zeros(2)},
        2,
        train=lambda number, state: moved(state, *([1.0] if number == 1 else [1.0, 1.0])),
        setting=lambda number: SETTING,
        needed=2,
    )
    assert [float(state["a/w"][0]) for state in course.states] == [0.0, 0.0, 1.0]
    assert course.scores == [None, None, None] and course.best == 2


def test_the_quorum_is_reached_and_never_rounded_down_to():
    assert [quorum(share, 3) for share in (0.0, 1 / 3, 0.5, 2 / 3, 1.0)] == [1, 1, 2, 2, 3]
    with pytest.raises(TooFewUpdates, match="1 of 2 needed updates"):
        aggregated(moved({"a/w": torch.zeros(1)}, 1.0), {"a/w": torch.zeros(1)}, {}, SETTING, needed=2)
