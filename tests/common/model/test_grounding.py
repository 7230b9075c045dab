"""Prompts as a step says them, and frozen models that are asked by them."""

import pytest
import torch

from common.adapters.grounding import NO_WORD
from common.backbones import build_backbone
from common.backbones.base import Backbone, between_ends
from common.backbones.tiny import TinyBackbone
from common.config.adapter import Adapter, LoraPart
from common.config.run import BackboneSpec
from common.config.step import Step
from common.config.task import GroundingTask
from common.errors import AdapterError, BackboneError
from common.model.adapted import AdaptedModel
from common.model.grounding import phrase_of

SIDE = 16
SPOKEN = {"GTVp": "primary tumor", "GTVn": "node"}


def model_of(backbone, **options):
    spec = GroundingTask(phrases=SPOKEN, **options)
    parts = (
        {"lora": LoraPart(sites=["text_attention"], rank=2, dropout=0.0)} if "text_attention" in backbone.sites else {}
    )
    return AdaptedModel(backbone, Step(name="s", task=spec, modalities=["CT"], adapter=Adapter(parts)), seed=1)


def test_prompts_by_hand_and_by_attributes():
    spec = GroundingTask(phrases={"polyp": "bump"}, structures=["polyp", "cell"])
    assert [phrase_of(spec, name) for name in spec.structures] == ["bump", "cell"]
    spec = GroundingTask(
        prompts="attributes", phrases={"polyp": "bump"},
        attributes={"polyp": ["pink yellow red", "oval", "rectum"], "cell": ["", "round", ""]},
    )  # fmt: skip
    assert phrase_of(spec, "polyp") == "pink yellow red color oval bump in rectum"  # the paper's own
    assert phrase_of(spec, "cell") == "round cell" and phrase_of(spec, "other") == "other"


@pytest.mark.parametrize(
    ("kind", "config", "side"), [("tiny", "any", 16), ("ct_clip", "mini", 16), ("unetr", "small", 32)]
)
def test_frozen_models_answer_with_words_and_boxes_by_cell(kind, config, side):
    backbone = build_backbone(
        BackboneSpec(kind=kind, config=config, random_seed=0 if kind == "unetr" else None)
    ).freeze()
    for slices, sides in ((False, 6), (True, 4)):
        model = model_of(backbone, slices=slices)
        inputs = {"CT": torch.randn(2, 1, side, side, side).clamp(-1, 1)}
        output = model(inputs, {"CT": torch.ones(2, dtype=torch.bool)})
        grid = model.encode(inputs, {"CT": torch.ones(2, dtype=torch.bool)}).pyramid[-1].shape[2:]
        words = (output.shape[1] - sides) // 2
        assert output.shape[2:] == grid and output.shape[1] == 2 * words + sides
        real = output[0, :-sides].unflatten(0, (2, words))[..., 0, 0, 0] != NO_WORD
        assert real.sum(dim=1).tolist() == [2, 1] or kind == "ct_clip"  # a mini vocabulary spells in pieces
        assert torch.isfinite(output).all()


def test_other_words_are_another_answer_and_an_adapted_text_side_is_heard():
    backbone = TinyBackbone()
    inputs, present = {"CT": torch.randn(1, 1, SIDE, SIDE, SIDE)}, {"CT": torch.ones(1, dtype=torch.bool)}
    one = model_of(backbone)
    task = GroundingTask(phrases={"GTVp": "bright lump", "GTVn": "node"})
    other = AdaptedModel(backbone, Step(name="s", task=task, modalities=["CT"]), seed=1)
    other.parts["head"].load_state_dict(one.parts["head"].state_dict())
    with torch.no_grad():
        first, second = one(inputs, present), other(inputs, present)
        assert not torch.equal(first[:, :2], second[:, :2]) and torch.equal(first[:, 2:], second[:, 2:])
        state = one.state()
        moved = [name for name in state if "lora_B" in name]
        one.load(state | {name: torch.randn_like(state[name]) for name in moved})
        assert not torch.equal(one(inputs, present)[:, :2], first[:, :2])


def test_a_level_that_is_not_there_and_a_model_without_words_are_refused():
    with pytest.raises(AdapterError, match=r"task.level is 4, and .* has 4 levels; use -4 to 3"):
        model_of(TinyBackbone(), level=4)
    with pytest.raises(BackboneError, match="embeds no words"):
        Backbone().words_of(torch.ones(1, 2, dtype=torch.int64))


def test_what_opens_and_closes_a_text_is_no_word():
    ids = torch.tensor([[2, 7, 8, 3, 0], [2, 9, 3, 0, 0], [2, 3, 0, 0, 0]])
    assert between_ends(ids).int().tolist() == [[0, 1, 1, 0, 0], [0, 1, 0, 0, 0], [0, 0, 0, 0, 0]]
