"""What trains when, by name: the declaration that server, wire and center share."""

from __future__ import annotations

import pytest
import torch

from common.adapters.lowrank import LORA_RULES, lora_rule, pairs_of, seeded_tensors, trained_tensors
from common.backbones.tiny import TinyBackbone
from common.config.adapter import Adapter, LoraPart, MlpPart
from common.config.step import Step
from common.config.task import PrognosisTask
from common.model.adapted import AdaptedModel


def model_of(rule: str, *, dora: bool = False, seed: int = 1) -> AdaptedModel:
    parts = {"within": LoraPart(sites=["image_attention"], rank=2, rule=rule, dora=dora), "image": MlpPart(width=6)}
    step = Step(name="s", task=PrognosisTask(bins=4, horizon_days=40), adapter=Adapter(parts))
    return AdaptedModel(TinyBackbone(), step, seed=seed)


def kinds(names) -> set[str]:
    return {name.rpartition(".lora_")[2].removesuffix(".weight") for name in names if name.startswith("within/")}


SIDE = {"side_A", "side_B"}
HOLDS = {"fedsb": {"A", "B", "M"}, "flora": {"A", "B", *SIDE}, "fedex": {"A", "B", *SIDE}}
TRAINS = {"ffa": ["B", "B"], "fedsvd": ["B", "B"], "rolora": ["B", "A"], "fedsb": ["M", "M"]}


@pytest.mark.parametrize("rule", LORA_RULES)
def test_each_rule_trains_its_factors_by_rounds(rule):
    model = model_of(rule)
    state = model.state()
    assert kinds(state) == HOLDS.get(rule, {"A", "B"})
    assert len(pairs_of(state, model.specs)) == 8
    both = {"A", "B"}
    for round, only in enumerate(TRAINS.get(rule, [both, both]), start=1):
        names = trained_tensors(state, model.specs, round=round)
        assert kinds(names) == set(only)
        assert {n for n in state if not n.startswith("within/")} <= names
        model.train_in_round(round)
        assert set(model.named_trainable_parameters()) == names
    ever = trained_tensors(state, model.specs, round=None)
    assert ever == {n for round in (1, 2) for n in trained_tensors(state, model.specs, round=round)}


def test_dora_trains_its_magnitude_and_keeps_its_side():
    state = model_of("", dora=True).state()
    assert kinds(state) == {"A", "B", "magnitude_vector", "side_A", "side_B", "side_scale"}
    assert kinds(trained_tensors(state, model_of("", dora=True).specs, round=3)) == {"A", "B", "magnitude_vector"}
    assert lora_rule(LoraPart()) == "rolora" and lora_rule(LoraPart(dora=True)) == "flora"


@pytest.mark.parametrize(
    ("rule", "seeded"), [("ffa", {"A"}), ("fedsb", {"A", "B"}), ("rolora", set()), ("flora", set())]
)
def test_what_no_round_changes_is_made_anew_by_the_seed(rule, seeded):
    first, again, other = model_of(rule), model_of(rule), model_of(rule, seed=2)
    names = seeded_tensors(first.state(), first.specs)
    assert kinds(names) == seeded
    assert not names & trained_tensors(first.state(), first.specs, round=None)
    for name in names:
        assert torch.equal(first.state()[name], again.state()[name])
        assert not torch.equal(first.state()[name], other.state()[name])


def test_a_step_that_rests_a_part_rests_its_factors():
    model = model_of("rolora")
    model.step.train_parts = ["head"]
    model._train_only(["head"])
    model.train_in_round(2)
    assert {name.partition("/")[0] for name in model.named_trainable_parameters()} == {"head"}
