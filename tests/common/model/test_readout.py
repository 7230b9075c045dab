"""How a step ends: one readout for each way, chosen by its parts, that reads what stands in front of it."""

import pytest
import torch

from common.backbones.tiny import TinyBackbone
from common.config.adapter import Adapter, DecoderPart, FusionPart, LinearPart, MlpPart, PatchEmbedPart, SkipPart
from common.config.step import Step
from common.config.task import ClassificationTask, GroundingTask, PrognosisTask, SegmentationTask
from common.errors import AdapterError
from common.model.adapted import AdaptedModel
from common.model.grounding import GroundingReadout
from common.model.readout import FusionReadout, HeadReadout, LinearReadout, VoxelReadout, ZeroShotReadout

SIZE = (16, 16, 16)
COX = PrognosisTask(loss="cox")
ENDS = {
    "decoder": (VoxelReadout, SegmentationTask(), ["CT"], {"decoder": DecoderPart(features=2)}),
    "grounding": (GroundingReadout, GroundingTask(), ["CT"], {}),
    "head": (HeadReadout, PrognosisTask(bins=5), ["CT", "EHR"], {}),
    "head on mlp parts": (HeadReadout, PrognosisTask(bins=5), ["CT"], {"image": MlpPart(width=6)}),
    "fusion": (FusionReadout, PrognosisTask(bins=5), ["CT", "EHR"], {"fusion": FusionPart(width=5)}),
    "linear": (LinearReadout, COX, ["CT", "RECORD"], {"linear": LinearPart()}),
    "zero-shot": (ZeroShotReadout, ClassificationTask(classes=["Emphysema"], zero_shot=True), ["CT"], {}),
}


@pytest.fixture(scope="module")
def backbone():
    return TinyBackbone()


def model_of(backbone, end):
    _, task, modalities, parts = ENDS[end]
    return AdaptedModel(backbone, Step(name="s", task=task, modalities=modalities, adapter=Adapter(parts)), seed=1)


def batch_of(backbone, modalities, *, size=2):
    generator = torch.Generator().manual_seed(0)
    inputs = {m: torch.randn(size, 1, *SIZE, generator=generator) for m in ("CT", "PET") if m in modalities}
    if "EHR" in modalities:
        inputs["EHR"] = backbone.tokenizer(["63 year old man", "smoker"][:size])
    return inputs, {m: torch.ones(size, dtype=torch.bool) for m in inputs}


@pytest.mark.parametrize("end", ENDS)
def test_a_step_ends_as_its_parts_say(backbone, end):
    model = model_of(backbone, end)
    assert type(model._readout) is ENDS[end][0]
    owned = {id(parameter) for parameter in model.parameters()}
    assert {id(parameter) for part in model.parts.values() for parameter in part.parameters()} <= owned
    assert not [name for name, _ in model.named_modules() if "readout" in name], "a readout owns no module"


def test_a_head_reads_the_embeddings_one_after_the_other(backbone):
    model = model_of(backbone, "head")
    inputs, present = batch_of(backbone, ["CT", "EHR"])
    with torch.no_grad():
        features = model.encode(inputs, present)
        expected = model.parts["head"](torch.cat([features.pooled["image"], features.pooled["text"]], dim=1))
        assert torch.equal(model.decode(features, inputs, present), expected)


def test_a_zero_shot_step_asks_the_frozen_model_and_encodes_nothing(backbone):
    model = model_of(backbone, "zero-shot")
    inputs, present = batch_of(backbone, ["CT"])
    with torch.no_grad():
        features = model.encode(inputs, present)
        assert features.pyramid == [] and features.pooled == {} and model.state() == {}
        assert torch.equal(model.decode(features, inputs, present), backbone.zero_shot(inputs, ["Emphysema"]))


def test_columns_are_features_then_the_record_with_a_flag_for_each_source(backbone):
    model = model_of(backbone, "linear")
    inputs, present = batch_of(backbone, ["CT"])
    values, flags = len(model.exact_layout.values), len(model.exact_layout.flags)
    recorded = values - backbone.image_dim
    inputs["RECORD"] = torch.arange(2.0 * (recorded + flags - 1), dtype=torch.float64).reshape(2, -1)
    present |= {"CT": torch.tensor([True, False]), "RECORD": torch.ones(2, dtype=torch.bool)}
    with torch.no_grad():
        features = model.encode(inputs, present)
        found, known = model.columns(features, inputs, present)
    assert found.dtype == known.dtype == torch.float64 and found.shape == (2, values) and known.shape == (2, flags)
    assert torch.equal(found[0, : backbone.image_dim], features.pooled["image"][0].double())
    assert torch.count_nonzero(found[1, : backbone.image_dim]) == 0 and known[:, 0].tolist() == [1.0, 0.0]
    assert torch.equal(found[:, backbone.image_dim :], inputs["RECORD"][:, :recorded])
    assert torch.equal(known[:, 1:], inputs["RECORD"][:, recorded:])


def test_a_step_without_a_linear_part_has_no_columns(backbone):
    model = model_of(backbone, "head")
    inputs, present = batch_of(backbone, ["CT", "EHR"])
    with pytest.raises(AdapterError, match="Step 's' has no linear part"):
        model.columns(model.encode(inputs, present), inputs, present)


def test_a_new_modalitys_skip_counts_for_the_cases_that_have_it(backbone):
    parts = {"decoder": DecoderPart(features=2), "stem": PatchEmbedPart(), "skip": SkipPart(features=2)}
    step = Step(name="s", task=SegmentationTask(), modalities=["CT", "PET"], adapter=Adapter(parts))
    model = AdaptedModel(backbone, step, seed=1)
    torch.nn.init.ones_(model.parts["skip"].out.weight)  # zero until trained
    inputs, present = batch_of(backbone, ["CT", "PET"])
    present["PET"] = torch.tensor([True, False])
    without = present | {"PET": torch.zeros(2, dtype=torch.bool)}
    with torch.no_grad():
        features = model.encode(inputs, without)
        found, none = model.decode(features, inputs, present), model.decode(features, inputs, without)
    assert torch.equal(found[1], none[1]) and not torch.equal(found[0], none[0])


def test_a_batch_without_volumes_cannot_be_segmented(backbone):
    step = Step(
        name="s",
        task=SegmentationTask(),
        modalities=["CT", "EHR"],
        adapter=Adapter({"decoder": DecoderPart(features=2)}),
    )
    model = AdaptedModel(backbone, step, seed=1)
    inputs, present = batch_of(backbone, ["EHR"])
    with pytest.raises(AdapterError, match="Step 's' segments volumes, but a batch holds EHR only"):
        model(inputs, present)
