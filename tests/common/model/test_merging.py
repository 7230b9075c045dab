"""Merging into a frozen model: golden values, the same digest for any number of threads, nothing else changed."""

import pytest
import torch

from common.backbones import backbone_digest
from common.backbones.base import tensors_digest
from common.backbones.tiny import TinyBackbone
from common.config.adapter import Adapter, DecoderPart, FullPart, LoraPart, MlpPart
from common.config.step import Step
from common.config.task import ClassificationTask, SegmentationTask
from common.errors import AdapterError
from common.model.adapted import AdaptedModel
from common.model.merging import merged, new_tensors

SITES = ["image_attention"]


def lora_step(**options):
    part = LoraPart(sites=SITES, **{"rank": 4, "alpha": 6.0, "dropout": 0.0, **options})
    parts = {"inside": part, "out": DecoderPart(features=4)}
    return Step(name="one", task=SegmentationTask(structures=["GTVp"]), adapter=Adapter(parts))


def trained(step, *, backbone=None):
    """A state as training would leave it: every tensor moved, seeded."""
    state = AdaptedModel(backbone or TinyBackbone(0).freeze(), step, seed=3).state()
    generator = torch.Generator().manual_seed(7)
    return {n: t + 0.1 * torch.randn(t.shape, generator=generator) for n, t in state.items()}


def volumes():
    x = torch.rand(2, 1, 16, 16, 16, generator=torch.Generator().manual_seed(1))
    return {"CT": x}, {"CT": torch.ones(2, dtype=torch.bool)}


def test_the_golden_layer_of_facts_h6():
    """W = [[1,2],[3,4],[0,-1]], A = [[.5,-.5]], B = [[1],[0],[2]], scale 2, x = [1,-2]: y = [0,-5,8]."""
    backbone = TinyBackbone(0).freeze()
    backbone.layer = torch.nn.Linear(2, 3, bias=False)
    with torch.no_grad():
        backbone.layer.weight.copy_(torch.tensor([[1.0, 2], [3, 4], [0, -1]]))
    backbone.freeze()
    step = lora_step(rank=1, alpha=2.0)
    state = {
        "inside/layer.lora_A.weight": torch.tensor([[0.5, -0.5]]),
        "inside/layer.lora_B.weight": torch.tensor([[1.0], [0], [2]]),
    }
    assert merged(backbone, step, state).layer(torch.tensor([1.0, -2])).tolist() == [0.0, -5.0, 8.0]


@pytest.mark.parametrize("rule", ["", "fedit", "ffa", "fedsvd", "fedsb", "flora", "fedex", "flexlora"])
def test_a_merged_model_says_what_the_adapted_one_said(rule):
    step = lora_step(rule=rule)
    backbone, state = TinyBackbone(0).freeze(), trained(step)
    adapted = AdaptedModel(backbone, step, seed=3)
    adapted.load(state)
    after = merged(backbone, step, state)
    inputs, present = volumes()
    with torch.no_grad():
        before = adapted.encode(inputs, present).pyramid
        now = after(inputs, present).pyramid
        root = backbone(inputs, present).pyramid
    for one, two in zip(before, now, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)
    assert not torch.equal(now[-1], root[-1])


def test_the_digest_is_the_same_with_1_2_and_4_threads():
    step = lora_step(rank=8)
    backbone, state = TinyBackbone(0).freeze(), trained(lora_step(rank=8))
    threads, found = torch.get_num_threads(), set()
    try:
        for number in (1, 2, 4):
            torch.set_num_threads(number)
            found.add(backbone_digest(merged(backbone, step, state)))
    finally:
        torch.set_num_threads(threads)
    assert len(found) == 1


def test_each_rank_is_added_in_float64_in_order_and_rounded_once():
    step = lora_step(rank=3, alpha=3.0)
    backbone, state = TinyBackbone(0).freeze(), trained(lora_step(rank=3))
    name = "image_blocks.0.qkv.weight"
    found = new_tensors(backbone, step, state)[name]
    left = state["inside/image_blocks.0.qkv.lora_B.weight"].double()
    right = state["inside/image_blocks.0.qkv.lora_A.weight"].double()
    row, column = 5, 2
    total = float(dict(backbone.named_parameters())[name][row, column].double())
    for rank in range(3):
        total += float(left[row, rank]) * float(right[rank, column])  # alpha / rank is 1
    assert found[row, column] == torch.tensor(total, dtype=torch.float64).float()


def test_the_model_that_is_merged_into_stays_as_it_is_and_shares_what_did_not_change():
    backbone, step = TinyBackbone(0).freeze(), lora_step()
    before = backbone_digest(backbone)
    after = merged(backbone, step, trained(step))
    assert backbone_digest(backbone) == before != backbone_digest(after)
    untouched = [
        n for n, p in after.named_parameters() if p.data_ptr() == dict(backbone.named_parameters())[n].data_ptr()
    ]
    changed = {n for n, _ in after.named_parameters()} - {*untouched}
    assert changed == set(new_tensors(backbone, step, trained(step)))
    assert all(not p.requires_grad for p in after.parameters())


def test_a_full_part_replaces_bit_by_bit():
    step = Step(
        name="stage",
        task=ClassificationTask(classes=["a", "b"]),
        adapter=Adapter({"all": FullPart(tensors=["image_blocks.*"])}),
    )
    backbone, state = TinyBackbone(0).freeze(), trained(step)
    after = dict(merged(backbone, step, state).named_parameters())
    own = {n.partition("/")[2]: t for n, t in state.items() if n.startswith("all/")}
    assert own and tensors_digest({n: after[n] for n in own}) == tensors_digest(own)


def factors(layer, *, left, right):
    return {f"inside/{layer}.lora_A.weight": torch.ones(*right), f"inside/{layer}.lora_B.weight": torch.ones(*left)}


@pytest.mark.parametrize(
    ("step", "state", "said"),
    [
        (Step(name="flat", adapter=Adapter({"out": MlpPart()})), {}, "no part that can be taken into the frozen"),
        (lora_step(), factors("nowhere", left=(2, 4), right=(4, 2)), "it stands on another base"),
        (lora_step(), factors("image_blocks.0.qkv", left=(5, 4), right=(4, 3)), "grouped convolutions cannot be"),
    ],
)
def test_what_cannot_be_merged_is_one_sentence(step, state, said):
    with pytest.raises(AdapterError, match=said):
        merged(TinyBackbone(0).freeze(), step, state)


def test_numbers_that_are_not_finite_are_not_merged():
    step = lora_step()
    state = {n: torch.full_like(t, torch.inf) for n, t in trained(step).items()}
    with pytest.raises(AdapterError, match="would not be finite"):
        merged(TinyBackbone(0).freeze(), step, state)
