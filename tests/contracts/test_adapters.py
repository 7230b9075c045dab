"""One table: every adapter on every backbone keeps the promises that the federation and the bank build on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product

import pytest
import torch
from torch import Tensor

from common.adapters.factors import trained_tensors
from common.backbones.base import Backbone, tensors_digest
from common.backbones.ctvit import CtvitConfig
from common.backbones.tiny import TinyBackbone
from common.config.schema import (
    Adapter,
    ClassificationTask,
    DecoderPart,
    FusionPart,
    LoraPart,
    MlpPart,
    PatchEmbedPart,
    PrognosisTask,
    SegmentationTask,
    SkipPart,
    Step,
)
from common.model import AdaptedModel


def ct_clip() -> Backbone:
    """CtClip at the mini configuration's structure, narrower, with random weights."""
    from common.backbones.ct_clip import MINI, CtClip

    image = CtvitConfig(
        dim=24, codebook_size=16, image_size=16, patch_size=8, temporal_patch_size=8, dim_head=8, heads=2
    )
    text = replace(MINI.text, hidden=16, layers=2, heads=2, intermediate=32)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return CtClip(replace(MINI, image=image, text=text, dim_latent=16)).freeze()


BACKBONES: dict[str, Callable[[], Backbone]] = {"ct_clip": ct_clip, "tiny": TinyBackbone}


@dataclass(frozen=True)
class Row:
    """One adapter.

    Args:
        parts: what the step attaches.
        before: the same step without the new parts, where that model accepts the same inputs: attaching must not
            change a bit of its output. None: there is no "before".
    """

    parts: dict
    task: object
    modalities: tuple[str, ...]
    before: dict | None = None
    before_modalities: tuple[str, ...] = ()


SURVIVAL, TUMOUR = PrognosisTask(bins=4, horizon_days=40), SegmentationTask()
MLPS = {"image": MlpPart(width=6), "text": MlpPart(input="text", width=6)}
DECODER = {"decoder": DecoderPart(features=2)}
ALL, IMAGES = ("CT", "PET", "EHR"), ("CT", "PET")
LORA = {"within": LoraPart(rank=2)}
ROWS = {
    "head": Row({}, ClassificationTask(classes=["a", "b"]), ("CT",)),
    "mlp": Row(MLPS, SURVIVAL, ALL),
    "fusion": Row({**MLPS, "fusion": FusionPart(width=6)}, SURVIVAL, ALL),
    "lora": Row({**MLPS, **LORA}, SURVIVAL, ("CT", "EHR"), MLPS, ("CT", "EHR")),
    "lora_last_block": Row({**MLPS, "within": LoraPart(rank=2, depth=1)}, SURVIVAL, ALL, MLPS, ALL),
    "dora": Row({**MLPS, "within": LoraPart(rank=2, dora=True)}, SURVIVAL, ("CT", "EHR"), MLPS, ("CT", "EHR")),
    **{
        f"lora_{rule}": Row({**MLPS, "within": part}, SURVIVAL, ("CT", "EHR"), MLPS, ("CT", "EHR"))
        for rule in ("ffa", "fedsb", "flora")
        for part in [LoraPart(rank=2, rule=rule)]
    },
    "decoder": Row(DECODER, TUMOUR, ("CT",)),
    "decoder_lora": Row({**DECODER, "within": LoraPart(sites=["image_attention"])}, TUMOUR, ("CT",), DECODER, ("CT",)),
    "stem": Row({**DECODER, "stem": PatchEmbedPart()}, TUMOUR, IMAGES, DECODER, ("CT",)),
    "stem_copied": Row({**DECODER, "stem": PatchEmbedPart(init="copy")}, TUMOUR, IMAGES),
    "skip": Row({**DECODER, "skip": SkipPart(features=2)}, TUMOUR, IMAGES, DECODER, ("CT",)),
    "pet_prognosis": Row({**MLPS, "stem": PatchEmbedPart()}, SURVIVAL, ALL, MLPS, ("CT", "EHR")),
    "everything": Row(
        {**DECODER, "within": LoraPart(sites=["image_attention"], dora=True), "stem": PatchEmbedPart(),
         "skip": SkipPart(features=2)}, TUMOUR, IMAGES, DECODER, ("CT",),
    ),
}  # fmt: skip
TABLE = [pytest.param(b, a, id=f"{b}-{a}") for b, a in product(BACKBONES, ROWS)]
BATCH, SIZE = 4, (16, 16, 16)


@pytest.fixture(scope="module")
def backbones() -> dict[str, Backbone]:
    return {name: make() for name, make in BACKBONES.items()}


def model_of(backbone: Backbone, row: Row, *, before: bool = False, seed: int = 3) -> AdaptedModel:
    parts, modalities = (row.before or {}, row.before_modalities) if before else (row.parts, row.modalities)
    step = Step(name="contract", task=row.task, modalities=list(modalities), adapter=Adapter(dict(parts)))
    return AdaptedModel(backbone, step, seed=seed)


def batch_of(backbone: Backbone, row: Row, *, mixed: bool = False) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Seeded inputs of four cases; ``mixed``: each case lacks something else, the last one everything but one."""
    generator = torch.Generator().manual_seed(0)
    inputs: dict[str, Tensor] = {
        m: torch.rand((BATCH, 1, *SIZE), generator=generator) * 2 - 1 for m in row.modalities if m != "EHR"
    }
    if "EHR" in row.modalities:
        inputs["EHR"] = backbone.tokenizer(["63 year old man.", "smoker.", "hpv positive.", "weight 80 kg."])
    present = {m: torch.ones(BATCH, dtype=torch.bool) for m in inputs}
    if mixed:
        for case, modality in enumerate(row.modalities[:-1] if len(row.modalities) > 1 else ()):
            present[modality][[case, BATCH - 1]] = False
        for modality, flags in present.items():
            inputs[modality][~flags] = 0
    return inputs, present


def train(model: AdaptedModel, inputs, present, *, steps: int = 2) -> AdaptedModel:
    optimizer = torch.optim.AdamW(model.trainable_parameters(), lr=0.02)
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        (model(inputs, present) - 1).square().mean().backward()
        optimizer.step()
    return model.eval()


def same_bits(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b)


@pytest.mark.parametrize(("backbone", "row"), [p for p in TABLE if ROWS[p.values[1]].before is not None])
def test_attaching_changes_no_output_bit(backbones, backbone, row):
    backbone, row = backbones[backbone], ROWS[row]
    inputs, present = batch_of(backbone, row)
    start, attached = model_of(backbone, row, before=True), model_of(backbone, row)
    with torch.no_grad():
        assert same_bits(start(inputs, present), attached(inputs, present))


@pytest.mark.parametrize(("backbone", "row"), TABLE)
def test_only_own_tensors_train_and_all_of_them_can(backbones, backbone, row):
    backbone, row = backbones[backbone], ROWS[row]
    before = tensors_digest(backbone.state_dict())
    model = model_of(backbone, row)
    start = model.state()
    inputs, present = batch_of(backbone, row)
    train(model, inputs, present, steps=3)
    twin = {
        name.replace(".base_layer", "").replace(".parametrizations.weight.original", ".weight"): t
        for name, t in model.backbone.state_dict().items()
        if "lora_" not in name
    }
    assert tensors_digest(backbone.state_dict()) == tensors_digest(twin) == before
    # A stem that starts at zero needs one step before the gradient reaches its convolution; three are enough for all.
    still = [name for name, tensor in model.state().items() if same_bits(tensor, start[name])]
    assert still == sorted(set(start) - trained_tensors(start, model.specs, round=None))


@pytest.mark.parametrize(("backbone", "row"), TABLE)
def test_a_saved_state_gives_a_fresh_model_the_same_output(backbones, backbone, row):
    backbone, row = backbones[backbone], ROWS[row]
    inputs, present = batch_of(backbone, row)
    trained = train(model_of(backbone, row), inputs, present)
    fresh = model_of(backbone, row, seed=4)
    with torch.no_grad():
        before = fresh(inputs, present)
        fresh.load(trained.state())
        assert not same_bits(before, fresh(inputs, present))
        assert same_bits(trained(inputs, present), fresh(inputs, present))


@pytest.mark.parametrize(("backbone", "row"), TABLE)
def test_names_are_stable_and_never_the_backbones(backbones, backbone, row):
    backbone, row = backbones[backbone], ROWS[row]
    model = model_of(backbone, row)
    state = model.state()
    assert list(state) == sorted(state) == list(model_of(backbone, row, seed=9).state())
    trained = train(model, *batch_of(backbone, row))
    assert list(trained.state()) == list(state)
    wanted = {*row.parts, *([] if "decoder" in row.parts else ["head"])}
    assert {name.partition("/")[0] for name in state} == wanted == set(model.part_names)
    held = {t.data_ptr() for t in backbone.state_dict().values() if t.numel()}
    assert not held & {t.data_ptr() for t in model.named_trainable_parameters().values()}
    assert not any("base_layer" in name for name in state)


@pytest.mark.parametrize(("backbone", "row"), TABLE)
def test_same_seed_same_start(backbones, backbone, row):
    states = [model_of(backbones[backbone], ROWS[row]).state() for _ in range(2)]
    assert tensors_digest(states[0]) == tensors_digest(states[1])


@pytest.mark.parametrize(("backbone", "row"), TABLE)
def test_any_subset_of_modalities_may_be_present(backbones, backbone, row):
    backbone, row = backbones[backbone], ROWS[row]
    model = train(model_of(backbone, row), *batch_of(backbone, row))
    inputs, present = batch_of(backbone, row, mixed=True)
    with torch.no_grad():
        output = model(inputs, present)
        assert torch.isfinite(output).all()
        for modality in row.modalities:  # what an absent modality's tensor holds does not matter
            noise = inputs[modality].clone()
            noise[~present[modality]] = 1
            assert same_bits(output, model({**inputs, modality: noise}, present))
        for case in range(BATCH):  # a batch without the modality's key is the same case
            mine = [m for m in row.modalities if present[m][case]]
            alone = model(*({m: d[m][case : case + 1] for m in mine} for d in (inputs, present)))
            assert torch.allclose(alone[0], output[case], atol=1e-4)
    train(model, inputs, present)


@pytest.mark.parametrize(("backbone", "row"), TABLE)
def test_cached_features_are_offered_exactly_when_the_encoder_stays(backbones, backbone, row):
    backbone, row = backbones[backbone], ROWS[row]
    model = model_of(backbone, row)
    inputs, present = batch_of(backbone, row)
    before = model.encode(inputs, present)
    train(model, inputs, present)
    after = model.encode(inputs, present)
    pairs = [
        *zip(before.pyramid, after.pyramid, strict=True),
        *((before.pooled[k], after.pooled[k]) for k in after.pooled),
    ]
    assert model.encoder_is_frozen == all(same_bits(a, b) for a, b in pairs)


@pytest.mark.parametrize(("backbone", "row"), TABLE)
def test_works_under_bf16_autocast_and_trains_float32_tensors(backbones, backbone, row):
    backbone, row = backbones[backbone], ROWS[row]
    model = model_of(backbone, row).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(*batch_of(backbone, row))
    (output.float() - 1).square().mean().backward()
    assert torch.isfinite(output).all()
    assert all(t.dtype == torch.float32 for t in model.state().values())


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_later_step_leaves_earlier_outputs_bit_identical(backbones, backbone):
    backbone = backbones[backbone]
    row = ROWS["decoder"]
    inputs, present = batch_of(backbone, row)
    earlier = train(model_of(backbone, row), inputs, present)
    with torch.no_grad():
        before, state = earlier(inputs, present), earlier.state()
    for later in ("everything", "lora", "dora", "fusion"):
        train(model_of(backbone, ROWS[later]), *batch_of(backbone, ROWS[later]))
    rebuilt = model_of(backbone, row)
    rebuilt.load(state)
    with torch.no_grad():
        assert same_bits(before, rebuilt(inputs, present))
        assert same_bits(before, earlier(inputs, present))
