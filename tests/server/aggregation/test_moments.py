"""Adam's moments over centers: a weighted mean of what travels, kept where nobody sends it."""

from __future__ import annotations

import torch

from common.config.federation import MeanFederation
from server.aggregation import aggregate
from server.aggregation.moments import averaged
from server.aggregation.types import Setting, Update

FIRST, SECOND = "adam_first/p/w", "adam_second/p/w"


def update(center: str, value: float, weight: float = 1.0) -> Update:
    beside = {FIRST: torch.tensor([value]), SECOND: torch.tensor([value**2])}
    return Update(center, {"p/w": torch.tensor([value])}, weight, beside)


def test_the_weighted_mean_and_nothing_else_is_kept():
    found = averaged([update("A", 1.0), update("B", 4.0, 3.0)], {"other": torch.zeros(1)})
    assert {name: tensor.tolist() for name, tensor in found.items()} == {FIRST: [3.25], SECOND: [12.25]}
    assert found[FIRST].dtype == torch.float64


def test_what_nobody_sends_in_a_round_keeps_its_moments_and_other_extras_are_none():
    memory = averaged([update("A", 2.0)], {})
    silent = Update("A", {"p/w": torch.tensor([2.0])}, 1.0, {"control/p/w": torch.ones(1)})
    assert averaged([silent], memory) == memory and averaged([silent], {}) == {}


def test_the_door_keeps_moments_beside_what_the_rule_keeps():
    start = {"p/w": torch.tensor([0.0])}
    done = aggregate([update("A", 1.0), update("B", 3.0)], start, {}, Setting(MeanFederation(weighting="uniform")))
    assert done.state["p/w"].tolist() == [2.0] and done.memory[SECOND].tolist() == [5.0]
    plain = aggregate([Update("A", {"p/w": torch.ones(1)}, 1.0)], start, {}, Setting(MeanFederation()))
    assert plain.memory == {}
