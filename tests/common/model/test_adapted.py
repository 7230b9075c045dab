"""AdaptedModel: how parts are joined, started, trained, saved and refused."""

from __future__ import annotations

import pytest
import torch

from common.backbones.base import tensors_digest
from common.backbones.tiny import TinyBackbone
from common.config.adapter import Adapter, DecoderPart, FusionPart, LoraPart, MlpPart, PatchEmbedPart, SkipPart
from common.config.step import Step
from common.config.task import ClassificationTask, PrognosisTask, SegmentationTask
from common.errors import AdapterError
from common.model.adapted import AdaptedModel
from common.model.state import parts_of
from common.model.twin import frozen_twin

SIZE = (16, 16, 16)


@pytest.fixture(scope="module")
def backbone():
    return TinyBackbone()


def step(parts=None, *, task=None, modalities=("CT", "EHR"), train=("*",)):
    task = task or PrognosisTask(bins=5)
    return Step(
        name="s", task=task, modalities=list(modalities), adapter=Adapter(dict(parts or {})), train_parts=list(train)
    )


def unicon():
    return {
        "within": LoraPart(rank=2),
        "image": MlpPart(width=6),
        "text": MlpPart(input="text", width=4),
        "fusion": FusionPart(width=5),
    }


def ct_pet():
    return {"decoder": DecoderPart(features=2), "stem": PatchEmbedPart(), "skip": SkipPart(features=2)}


def case(backbone, batch=2):
    inputs = {
        "CT": torch.randn(batch, 1, *SIZE),
        "PET": torch.randn(batch, 1, *SIZE),
        "EHR": backbone.tokenizer(["63 year old man", "smoker"] * (batch // 2) or ["smoker"]),
    }
    return inputs, {name: torch.ones(batch, dtype=torch.bool) for name in inputs}


def train_a_step(model, inputs, present, lr=0.1):
    model.train()
    model(inputs, present).square().sum().backward()
    torch.optim.SGD(model.trainable_parameters(), lr=lr).step()
    return model.eval()


def test_state_names_are_part_and_path(backbone):
    model = AdaptedModel(backbone, step(unicon()), seed=1)
    names = list(model.state())
    assert model.part_names == ["fusion", "head", "image", "text", "within"]
    assert names == sorted(names)
    assert names[:6] == [
        "fusion/mlp.0.bias", "fusion/mlp.0.weight", "fusion/mlp.1.bias", "fusion/mlp.1.weight",
        "head/bias", "head/weight",
    ]  # fmt: skip
    assert "within/image_blocks.0.qkv.lora_A.weight" in names
    assert "within/text_blocks.1.value.lora_B.weight" in names


def test_counts_are_of_the_parts_alone(backbone):
    counts = AdaptedModel(backbone, step(unicon()), seed=1).parameter_counts()
    image_lora = 4 * 2 * ((24 + 72) + (24 + 24))
    text_lora = 2 * 2 * 2 * (16 + 16)
    assert counts == {
        "fusion": 10 * 5 + 5 + 2 * 5,
        "head": 5 * 5 + 5,
        "image": 24 * 6 + 6 + 2 * 6,
        "text": 16 * 4 + 4 + 2 * 4,
        "within": image_lora + text_lora,
    }


def test_the_start_depends_on_seed_and_part_name_alone(backbone):
    whole = AdaptedModel(backbone, step(unicon()), seed=1).state()
    few = {name: part for name, part in reversed(unicon().items()) if name != "text"}
    fewer = AdaptedModel(backbone, step(few, modalities=["CT"]), seed=1).state()
    for part in ("within", "image"):
        for name, tensor in parts_of(whole)[part].items():
            assert torch.equal(tensor, fewer[name]), name
    other = AdaptedModel(backbone, step(unicon()), seed=2).state()
    assert not torch.equal(whole["head/weight"], other["head/weight"])


def test_building_leaves_the_global_generator_alone(backbone):
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    AdaptedModel(backbone, step(unicon()), seed=1)
    assert torch.equal(torch.rand(3), wanted)


def test_two_models_on_one_backbone_do_not_see_each_other(backbone):
    inputs, present = case(backbone)
    before, names = tensors_digest(backbone.state_dict()), [n for n, _ in backbone.named_modules()]
    first, second = (AdaptedModel(backbone, step(unicon()), seed=1) for _ in range(2))
    untouched = second(inputs, present)
    train_a_step(first, inputs, present)
    assert not torch.equal(first(inputs, present), untouched)
    assert torch.equal(second(inputs, present), untouched)
    assert tensors_digest(backbone.state_dict()) == before
    assert [n for n, _ in backbone.named_modules()] == names
    assert not backbone.training and not any(p.requires_grad for p in backbone.parameters())


def test_the_twin_shares_storage_and_not_flags():
    backbone = TinyBackbone()
    twin = frozen_twin(backbone)
    pairs = list(zip(backbone.parameters(), twin.parameters(), strict=True))
    assert all(a is not b and a.data_ptr() == b.data_ptr() for a, b in pairs)
    backbone.requires_grad_(True)
    assert not any(p.requires_grad for p in twin.parameters())
    twin.double()  # moving or casting a model leaves the shared tensors as they are
    assert all(p.dtype == torch.float32 for p in backbone.parameters())


def test_train_mode_reaches_trained_parts_only(backbone):
    parts = unicon() | {"within": LoraPart(rank=2, dropout=0.5)}
    inputs, present = case(backbone)
    model = AdaptedModel(backbone, step(parts, train=["fusion", "head"]), seed=1).train()
    assert model.encoder_is_frozen
    assert not model.backbone.training and not model.parts["image"].training and model.parts["fusion"].training
    first, second = (model.encode(inputs, present).pooled["image"] for _ in range(2))
    assert torch.equal(first, second)
    model = AdaptedModel(backbone, step(parts), seed=1).train()
    assert not model.encoder_is_frozen
    train_a_step(model, inputs, present)
    first, second = (model.train().encode(inputs, present).pooled["image"] for _ in range(2))
    assert not torch.equal(first, second)  # dropout inside the adapter only


def test_the_encoder_key_tells_features_apart(backbone):
    inputs, present = case(backbone)
    plain = AdaptedModel(backbone, step({"image": MlpPart()}), seed=1)
    key = plain.encoder_key()
    assert train_a_step(plain, inputs, present).encoder_key() == key  # what comes after the encoder does not count
    assert AdaptedModel(backbone, step(), seed=2).encoder_key() == key
    lora = AdaptedModel(backbone, step(unicon(), train=["head"]), seed=1)
    assert lora.encoder_is_frozen and lora.encoder_key() != key
    assert AdaptedModel(backbone, step(unicon()), seed=2).encoder_key() != lora.encoder_key()


def test_only_parts_named_in_train_parts_move(backbone):
    inputs, present = case(backbone)
    model = AdaptedModel(backbone, step(unicon(), train=["with*", "head"]), seed=1)
    before = model.state()
    after = train_a_step(model, inputs, present).state()
    moved = {name.partition("/")[0] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"within", "head"}
    assert {name.partition("/")[0] for name in model.named_trainable_parameters()} == {"within", "head"}


def test_a_pattern_that_matches_no_part_is_refused(backbone):
    with pytest.raises(AdapterError, match="train_parts names 'fussion', which match no part; parts: fusion, head"):
        AdaptedModel(backbone, step(unicon(), train=["fussion"]), seed=1)


def test_absent_modalities_contribute_nothing(backbone):
    inputs, present = case(backbone)
    model = AdaptedModel(backbone, step(unicon()), seed=1)
    present["EHR"] = torch.tensor([True, False])
    output = model(inputs, present)
    other = model({**inputs, "EHR": inputs["EHR"].flip(0)}, present)
    assert torch.equal(output[1], other[1]) and not torch.equal(output[0], other[0])
    without = model({"CT": inputs["CT"]}, {"CT": present["CT"]})
    assert torch.allclose(output[1], without[1], atol=1e-6)


def test_modalities_beyond_the_step_are_not_looked_at(backbone):
    inputs, present = case(backbone)
    model = AdaptedModel(
        backbone, step({"decoder": DecoderPart(features=2)}, task=SegmentationTask(), modalities=["CT"]), seed=1
    )
    alone = model({"CT": inputs["CT"]}, {"CT": present["CT"]})
    assert torch.equal(model(inputs, present), alone)
    with pytest.raises(AdapterError, match="A batch holds EHR, but step 's' looks at CT"):
        model({"EHR": inputs["EHR"]}, {"EHR": present["EHR"]})


def test_without_fusion_the_head_reads_the_embeddings_side_by_side(backbone):
    assert AdaptedModel(backbone, step(), seed=1).parts["head"].in_features == 24 + 16
    assert AdaptedModel(backbone, step({"image": MlpPart(width=6)}), seed=1).parts["head"].in_features == 6 + 16
    assert AdaptedModel(backbone, step(modalities=["EHR"]), seed=1).parts["head"].in_features == 16


def test_encode_and_decode_are_forward(backbone):
    inputs, present = case(backbone)
    model = AdaptedModel(backbone, step(ct_pet(), task=SegmentationTask(), modalities=["CT", "PET"]), seed=1)
    features = model.encode(inputs, present)
    output = model.decode(features, inputs, present)
    assert output.shape == (2, 3, *SIZE)
    assert torch.equal(output, model(inputs, present))


def test_zero_shot_answers_by_prompts_alone(backbone):
    inputs, present = case(backbone)
    task = ClassificationTask(classes=["Emphysema", "Atelectasis"], zero_shot=True)
    model = AdaptedModel(backbone, step(task=task, modalities=["CT"]), seed=1)
    assert model.state() == {} and model.trainable_parameters() == [] and model.encoder_is_frozen
    assert torch.equal(model(inputs, present), backbone.zero_shot(inputs, task.classes))


def test_a_state_that_does_not_fit_is_refused_as_a_whole(backbone):
    model = AdaptedModel(backbone, step(unicon()), seed=1)
    before = model.state()
    state = {name: tensor + 1 for name, tensor in before.items()}
    state["extra/weight"] = state.pop("head/bias")
    state["head/weight"] = state["head/weight"].double()
    state["fusion/mlp.0.bias"] = torch.zeros(7)
    with pytest.raises(AdapterError) as error:
        model.load(state)
    assert str(error.value) == (
        "An adapter state does not belong to this step: 1 missing: head/bias; 1 unexpected: extra/weight; "
        "2 misshapen: fusion/mlp.0.bias is float32 (7,), expected float32 (5,), "
        "head/weight is float64 (5, 5), expected float32 (5, 5). Use a state of the same step."
    )
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state().items())


def test_a_state_is_a_copy(backbone):
    model = AdaptedModel(backbone, step(unicon()), seed=1)
    model.state()["head/bias"].fill_(9)
    assert (model.state()["head/bias"] != 9).all()


@pytest.mark.parametrize(
    ("parts", "task", "modalities", "sentence"),
    [
        ({}, SegmentationTask(), ["CT"], "segmentation needs a decoder part"),
        ({"d": DecoderPart()}, PrognosisTask(), ["CT"], "a decoder part needs a segmentation task"),
        (
            {"d": DecoderPart(), "e": DecoderPart()},
            SegmentationTask(),
            ["CT"],
            "2 decoder parts, at most one fits",
        ),
        ({"s": SkipPart()}, PrognosisTask(), ["CT", "PET"], "part 's', a skip, needs a decoder part"),
        ({"p": PatchEmbedPart()}, PrognosisTask(), ["CT"], "part 'p' is for PET, which is not among"),
        ({"t": MlpPart(input="text")}, PrognosisTask(), ["CT"], "part 't' reads EHR, which is not among"),
        ({"head": MlpPart()}, PrognosisTask(), ["CT"], "a part cannot be called 'head'"),
        ({"a.b": MlpPart()}, PrognosisTask(), ["CT"], "a part cannot be called 'a.b'"),
        (
            {"d": DecoderPart(features=4), "s": SkipPart(features=8)},
            SegmentationTask(),
            ["CT", "PET"],
            "part 's' has 8 features, the decoder 4",
        ),
        ({"d": DecoderPart()}, SegmentationTask(), ["EHR"], "segmentation needs an image, as CT or PET, among the mod"),
    ],
)
def test_parts_that_do_not_fit_together_are_refused(backbone, parts, task, modalities, sentence):
    with pytest.raises(AdapterError, match=sentence):
        AdaptedModel(backbone, step(parts, task=task, modalities=modalities), seed=1)


def renamed(given, old, new):
    return {new if name == old else name: value for name, value in given.items()}


def test_any_other_volume_is_treated_as_pet_is_to_the_bit(backbone):
    inputs, present = case(backbone)
    present["CT"] = torch.tensor([True, False])  # the second case has the other volume alone
    mr = {"decoder": DecoderPart(features=2), "stem": PatchEmbedPart("patch_embed", "MR")}
    mr["skip"] = SkipPart("skip", "MR", features=2)
    of_pet = AdaptedModel(backbone, step(ct_pet(), task=SegmentationTask(), modalities=("CT", "PET")), seed=3)
    of_mr = AdaptedModel(backbone, step(mr, task=SegmentationTask(), modalities=("CT", "MR")), seed=3)
    other = renamed(inputs, "PET", "MR"), renamed(present, "PET", "MR")
    for model, given in ((of_pet, (inputs, present)), (of_mr, other)):
        train_a_step(model, *given)
    assert torch.equal(of_pet(inputs, present), of_mr(*other))
    assert all(torch.equal(of_pet.state()[name], of_mr.state()[name]) for name in of_pet.state())
    alone = AdaptedModel(backbone, step(mr, task=SegmentationTask(), modalities=("MR",)), seed=3)
    seen, there = {"MR": other[0]["MR"]}, {"MR": other[1]["MR"]}
    assert torch.equal(alone(seen, there), alone({"CT": seen["MR"], **seen}, {"CT": ~there["MR"], **there}))
