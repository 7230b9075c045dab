"""One table: every adapter on every backbone keeps the promises that the federation and the bank build on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from itertools import product

import pytest
import torch
from torch import Tensor

from common.adapters.lowrank import trained_tensors
from common.backbones.base import Backbone, tensors_digest
from common.backbones.ctvit import CtvitConfig
from common.backbones.tiny import TinyBackbone
from common.config.adapter import (
    Adapter,
    DecoderPart,
    FullPart,
    FusionPart,
    JoinPart,
    LoraPart,
    MlpPart,
    PatchEmbedPart,
    ResolutionPart,
    SkipPart,
    StandInPart,
    UnetPart,
    UptakePart,
)
from common.config.step import Step
from common.config.task import ClassificationTask, PrognosisTask, SegmentationTask
from common.config.view import View
from common.errors import FedgraftError
from common.model.adapted import AdaptedModel


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


def unetr() -> Backbone:
    """UNETR's ViT at four narrow layers, with random weights."""
    from common.backbones.unetr import Unetr, UnetrConfig

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Unetr(UnetrConfig((16, 16, 16), (8, 8, 8), hidden=16, feedforward=24, layers=4, heads=2)).freeze()


def swin_unetr() -> Backbone:
    """Swin UNETR's encoder with one narrow block a stage, with random weights."""
    from common.backbones.swin_unetr import SwinConfig, SwinUnetr

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return SwinUnetr(SwinConfig(6, depths=(1, 1, 1, 1), heads=(1, 2, 3, 3), window=(4, 4, 4))).freeze()


BACKBONES: dict[str, Callable[[], Backbone]] = {
    "ct_clip": ct_clip, "swin_unetr": swin_unetr, "tiny": TinyBackbone, "unetr": unetr,
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One adapter.

    Args:
        parts: what the step attaches.
        before: the same step without the new parts, where that model accepts the same inputs: attaching must not
            change a bit of its output. None: there is no "before".
        beside: it needs a backbone that takes tokens of several modalities beside each other.
    """

    parts: dict
    task: object
    modalities: tuple[str, ...]
    before: dict | None = None
    before_modalities: tuple[str, ...] = ()
    beside: bool = False


@dataclass(frozen=True)
class Earlier:
    """A model that has learned, what it answered then, and its tensors as they were."""

    model: AdaptedModel
    output: Tensor
    state: dict[str, Tensor]


SURVIVAL, TUMOUR = PrognosisTask(bins=4, horizon_days=40), SegmentationTask()
MLPS = {"image": MlpPart(width=6), "text": MlpPart(input="text", width=6)}
DECODER = {"decoder": DecoderPart(features=2)}
ALL, IMAGES = ("CT", "PET", "EHR"), ("CT", "PET")
LORA = {"within": LoraPart(rank=2)}
PATHWAY = {
    "stem": PatchEmbedPart(init="copy"), "join": JoinPart(), "ct": StandInPart(modality="CT"), "pet": StandInPart(),
    "skip": SkipPart(features=2),
}  # fmt: skip
ATTENTION_WEIGHTS = [  # of the image side, whatever the backbone calls them
    f"*.{name}.weight" for name in ("to_q", "to_out", "qkv", "proj", "out_proj")
]
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
    "uptake": Row({**DECODER, "uptake": UptakePart(width=2)}, TUMOUR, IMAGES, DECODER, ("CT",)),
    "unet": Row({"unet": UnetPart(widths=[4, 4, 6])}, TUMOUR, IMAGES),
    "pet_prognosis": Row({**MLPS, "stem": PatchEmbedPart()}, SURVIVAL, ALL, MLPS, ("CT", "EHR")),
    "fusion_attention": Row({**MLPS, "fusion": FusionPart(width=6, mode="attention")}, SURVIVAL, ALL),
    "decoder_light": Row({"decoder": DecoderPart(features=2, style="light")}, TUMOUR, ("CT",)),
    "decoder_linear": Row(
        {"decoder": DecoderPart(style="linear"), "within": LoraPart(sites=["image_attention"])}, TUMOUR, ("CT",)
    ),
    "full": Row({**DECODER, "full": FullPart(tensors=ATTENTION_WEIGHTS)}, TUMOUR, ("CT",), DECODER, ("CT",)),
    "full_scratch": Row({**DECODER, "full": FullPart(tensors=ATTENTION_WEIGHTS, scratch=True)}, TUMOUR, ("CT",)),
    "resolution": Row({**DECODER, "stem": ResolutionPart()}, TUMOUR, ("CT",), DECODER, ("CT",)),
    "resolution_patch": Row({**DECODER, "stem": ResolutionPart(patch=[4, 8, 4])}, TUMOUR, ("CT",)),
    "pet_beside": Row({**DECODER, "stem": PatchEmbedPart(init="copy", place="beside")}, TUMOUR, IMAGES, beside=True),
    "pet_joined": Row({**DECODER, **PATHWAY}, TUMOUR, IMAGES, DECODER, ("CT",)),
    "everything": Row(
        {**DECODER, "within": LoraPart(sites=["image_attention"], dora=True), "stem": PatchEmbedPart(),
         "skip": SkipPart(features=2)}, TUMOUR, IMAGES, DECODER, ("CT",),
    ),
}  # fmt: skip
BESIDE = ("tiny", "unetr")
BATCH = 4


def exists(backbone: str, row: str) -> bool:
    """Whether the architecture has a place for the adapter; `test_what_cannot_be_is_refused_in_a_sentence`."""
    if backbone == "swin_unetr" and row == "resolution_patch":
        return False
    return backbone in BESIDE or not ROWS[row].beside


HEAVY = {"swin_unetr", "unetr"}  # with MONAI's blocks; run by make test-all
TABLE = [
    pytest.param(b, a, id=f"{b}-{a}", marks=[pytest.mark.slow] if b in HEAVY else [])
    for b, a in product(BACKBONES, ROWS)
    if exists(b, a)
]


def size_of(backbone: Backbone) -> list[int]:
    """Voxels of a test volume: two tokens a side, or the smallest that fits."""
    return [max(16, side) for side in backbone.multiple]


def fitted(part, backbone: Backbone):
    """A part as it can be on a backbone: its own sites, and positions where there are any outside the blocks."""
    if isinstance(part, LoraPart):
        return replace(part, sites=[site for site in part.sites if site in backbone.sites])
    if isinstance(part, ResolutionPart) and len(set(backbone.levels)) > 1:
        return replace(part, position=False)
    return part


@pytest.fixture(scope="module")
def backbones() -> dict[str, Backbone]:
    return {name: make() for name, make in BACKBONES.items()}


def model_of(backbone: Backbone, row: Row, *, before: bool = False, seed: int = 3) -> AdaptedModel:
    parts, modalities = (row.before or {}, row.before_modalities) if before else (row.parts, row.modalities)
    view = View(size=size_of(backbone), window=size_of(backbone), pet="suv")
    adapter = Adapter({name: fitted(part, backbone) for name, part in parts.items()})
    step = Step(name="contract", task=row.task, modalities=list(modalities), adapter=adapter, view=view)
    return AdaptedModel(backbone, step, seed=seed)


def batch_of(backbone: Backbone, row: Row, *, mixed: bool = False) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Seeded inputs of four cases; ``mixed``: each lacks something else, and the last everything but one modality."""
    generator = torch.Generator().manual_seed(0)
    inputs: dict[str, Tensor] = {
        m: torch.rand((BATCH, 1, *size_of(backbone)), generator=generator) * 2 - 1 for m in row.modalities if m != "EHR"
    }
    if "EHR" in row.modalities:
        inputs["EHR"] = backbone.tokenizer(["63 year old man.", "smoker.", "hpv positive.", "weight 80 kg."])
    present = {m: torch.ones(BATCH, dtype=torch.bool) for m in inputs}
    if mixed:
        for case, modality in enumerate(row.modalities if len(row.modalities) > 1 else ()):
            present[modality][case] = False
        for modality in row.modalities[:-1]:
            present[modality][BATCH - 1] = False
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
    inputs, present = batch_of(backbone, row, mixed="pet" in row.parts)  # stand-ins work where something is missing
    train(model, inputs, present, steps=3)
    own = {name.partition("/")[2] for name in start if name.startswith("full/")}
    frozen = {
        name.replace(".base_layer", "").replace(".parametrizations.weight.original", ".weight"): t
        for name, t in model.backbone.state_dict().items()
        if "lora_" not in name and name not in own
    }
    kept = {name: t for name, t in backbone.state_dict().items() if name not in own}
    assert tensors_digest(frozen) == tensors_digest(kept) and tensors_digest(backbone.state_dict()) == before
    # A stem that starts at zero needs one step before the gradient reaches its convolution; three are enough for all.
    still = [name for name, tensor in model.state().items() if same_bits(tensor, start[name])]
    assert still == sorted(set(start) - trained_tensors(start, model.specs, round=None))


@pytest.mark.parametrize(("backbone", "row"), TABLE)
def test_a_saved_state_gives_a_fresh_model_the_same_output(backbones, before_later_steps, backbone, row):
    trained = before_later_steps(backbone)[row]
    backbone, row = backbones[backbone], ROWS[row]
    inputs, present = batch_of(backbone, row)
    fresh = model_of(backbone, row, seed=4)
    with torch.no_grad():
        before = fresh(inputs, present)
        fresh.load(trained.state)
        assert not same_bits(before, fresh(inputs, present))
        assert same_bits(trained.output, fresh(inputs, present))


@pytest.mark.parametrize(("backbone", "row"), TABLE)
def test_names_are_stable_and_never_the_backbones(backbones, before_later_steps, backbone, row):
    trained = before_later_steps(backbone)[row]
    backbone, row = backbones[backbone], ROWS[row]
    model = model_of(backbone, row)
    state = model.state()
    assert list(state) == sorted(state) == list(model_of(backbone, row, seed=9).state())
    assert list(trained.state) == list(state)
    wanted = {*row.parts, *([] if {"decoder", "unet"} & {*row.parts} else ["head"])}
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


@pytest.fixture(scope="module")
def before_later_steps(backbones) -> Callable[[str], dict[str, Earlier]]:
    """Every row learned and answered on a backbone, before two later steps learned there; once for a backbone."""

    @cache
    def learned(name: str) -> dict[str, Earlier]:
        backbone = backbones[name]
        earlier = {row: answered(backbone, ROWS[row]) for row in ROWS if exists(name, row)}
        for later in ("everything", "full"):  # between them they reach all that can be reached
            train(model_of(backbone, ROWS[later]), *batch_of(backbone, ROWS[later]))
        return earlier

    return learned


def answered(backbone: Backbone, row: Row) -> Earlier:
    """A row's model, learned, with its answer to the batch that it learned from."""
    inputs, present = batch_of(backbone, row)
    model = train(model_of(backbone, row), inputs, present)
    with torch.no_grad():
        return Earlier(model, model(inputs, present), model.state())


@pytest.mark.parametrize(("backbone", "row"), TABLE)
def test_a_later_step_leaves_earlier_outputs_bit_identical(backbones, before_later_steps, backbone, row):
    earlier = before_later_steps(backbone)[row]
    backbone, row = backbones[backbone], ROWS[row]
    inputs, present = batch_of(backbone, row)
    rebuilt = model_of(backbone, row)
    rebuilt.load(earlier.state)
    with torch.no_grad():
        assert same_bits(earlier.output, rebuilt(inputs, present))
        assert same_bits(earlier.output, earlier.model(inputs, present))


@pytest.mark.parametrize(
    ("backbone", "parts", "sentence"),
    [
        ("swin_unetr", {"decoder": DecoderPart(style="unetr")}, "set the decoder part's style to light"),
        (
            "swin_unetr",
            {**DECODER, "stem": ResolutionPart(position=False, patch=[4, 4, 4])},
            "leave the resolution",
        ),
        ("ct_clip", {**DECODER, "full": FullPart(tensors=["vit*"])}, r"\['vit\*'\] match no tensor of CtClip"),
        ("ct_clip", {**DECODER, "full": FullPart(tensors=["*", "!*"])}, "match no tensor of CtClip"),
        ("unetr", {**DECODER, "full": FullPart(), "within": LoraPart()}, "a full part trains the layers"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(backbones, backbone, parts, sentence):
    with pytest.raises(FedgraftError, match=sentence):
        model_of(backbones[backbone], Row(parts, TUMOUR, ("CT",)))


def test_positions_inside_the_blocks_cannot_be_a_tasks_own(backbones):
    step = Step("s", TUMOUR, ["CT"], adapter=Adapter({**DECODER, "stem": ResolutionPart()}))
    with pytest.raises(FedgraftError, match="SwinUnetr has no position parameters of its own"):
        AdaptedModel(backbones["swin_unetr"], step, seed=1)


def test_tokens_that_cannot_stand_beside_each_other_are_refused(backbones):
    row = ROWS["pet_beside"]
    with pytest.raises(FedgraftError, match="cannot join modalities by 'beside'"):
        model_of(backbones["ct_clip"], row)(*batch_of(backbones["ct_clip"], row))


def test_a_volume_smaller_than_a_patch_and_an_adapter_of_another_task_are_refused(backbones):
    backbone = backbones["tiny"]
    model = model_of(backbone, ROWS["resolution_patch"])
    volume = torch.zeros(1, 1, 2, 16, 16)
    with pytest.raises(FedgraftError, match=r"A volume of \(2, 16, 16\) voxels .* is not a whole number of patches"):
        model({"CT": volume}, {"CT": torch.ones(1, dtype=torch.bool)})
    with pytest.raises(FedgraftError, match=r"does not belong to this step: .* missing: .* unexpected: .*"):
        model.load(model_of(backbone, ROWS["lora"]).state())
