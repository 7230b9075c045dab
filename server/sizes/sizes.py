"""What a frozen model and the adapters on it weigh: counted on the meta device, so that no weights are allocated.

``python -m server inspect`` prints one backbone's sizes; with ``--table`` those of the real sizes, and what PEMMA's
parts weigh beside the share that its paper claims.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from common.backbones import build_backbone
from common.backbones.base import Backbone, Level
from common.config.adapter import (
    Adapter,
    DecoderPart,
    FusionPart,
    JoinPart,
    LoraPart,
    MlpPart,
    PatchEmbedPart,
    ResolutionPart,
    StandInPart,
)
from common.config.run import BackboneSpec, Run
from common.config.step import Step
from common.config.task import PrognosisTask, SegmentationTask
from common.data.batch import CT, EHR, PET
from common.errors import FedgraftError
from common.model.adapted import AdaptedModel
from common.model.state import bytes_of

RELEASED = BackboneSpec(kind="ct_clip", config="released")
FLOAT_BYTES = 4


@dataclass(frozen=True)
class Site:
    """Where adapters may attach: the layers that the pattern matches, in how many blocks."""

    pattern: str
    layers: int
    blocks: int


@dataclass(frozen=True)
class Choice:
    """What one adapter choice trains and sends.

    Args:
        parameters, bytes: of what travels, float32; None where the choice does not fit the backbone.
        share: of the parameters of backbone and adapter together, 0 to 1.
        reason: why it does not fit, one sentence.
    """

    parameters: int | None
    bytes: int | None
    share: float | None
    reason: str = ""


@dataclass(frozen=True)
class Sizes:
    """One backbone, as ``inspect`` prints it. Bytes are those of every tensor in float32, buffers included."""

    kind: str
    config: str
    parameters: int
    bytes: int
    spacing_mm: tuple[float, float, float]
    native_size: tuple[int, int, int]
    ct_hu: tuple[float, float]
    patch: tuple[int, int, int]
    multiple: tuple[int, int, int]
    levels: tuple[Level, ...]
    sites: dict[str, Site]
    choices: dict[str, Choice]
    steps: dict[str, Choice] = field(default_factory=dict)


def backbone_sizes(spec: BackboneSpec, steps: Mapping[str, Step] | None = None) -> Sizes:
    """The sizes of the backbone that a spec names, of every adapter choice on it and of a run's steps on it.

    Raises:
        UnknownName, BackboneError: the spec names no backbone that can be built.
    """
    with torch.device("meta"):
        backbone = build_backbone(spec).freeze()
        offered = {name: _choice(backbone, step) for name, step in choices(backbone).items()}
        whole = parameter_count(backbone)
        offered["everything"] = Choice(whole, FLOAT_BYTES * whole, 1.0)
        used = _steps(backbone, steps or {})
    native = backbone.native
    return Sizes(
        kind=spec.kind, config=spec.config, parameters=whole, bytes=tensor_bytes(backbone),
        spacing_mm=native.spacing_mm, native_size=native.size, ct_hu=native.ct_hu, patch=backbone.patch,
        multiple=backbone.multiple, levels=backbone.levels, sites=_sites(backbone), choices=offered, steps=used,
    )  # fmt: skip


def released_sizes(run: Run) -> dict[str, object]:
    """``released_bytes`` (step -> bytes of one message's adapter) and ``released_model_bytes`` (float32)."""
    with torch.device("meta"):
        backbone = build_backbone(RELEASED)
        steps = {name: choice.bytes for name, choice in _steps(backbone, run.steps).items() if choice.bytes is not None}
    return {"released_bytes": steps, "released_model_bytes": tensor_bytes(backbone)}


def choices(backbone: Backbone) -> dict[str, Step]:
    """The adapters that a step may choose among, each as the smallest step that has it. Heads are not counted."""
    image = [site for site in backbone.sites if site.startswith("image")]
    rows = {f"LoRA r=8, {site}": _step({"within": LoraPart(sites=[site], dropout=0.0)}) for site in backbone.sites}
    rows |= {
        f"{name} r={rank}, all image sites": _step(
            {"within": LoraPart(sites=image, rank=rank, dropout=0.0, dora=name == "DoRA")}
        )
        for name in ("LoRA", "DoRA")
        for rank in (4, 8, 16)
    }
    rows["own patch embedding (resolution)"] = _step({"resolution": ResolutionPart(position=False)})
    rows["own patch embedding and positions (resolution)"] = _step({"resolution": ResolutionPart()})
    rows["PET patch embedding, as CT's"] = _step({"stem": PatchEmbedPart(init="copy")}, modalities=[CT, PET])
    rows["PET beside CT, joined, two stand-ins (PEMMA on Swin)"] = _step(
        {
            "stem_pet": PatchEmbedPart(init="copy"),
            "join": JoinPart(),
            "alone_ct": StandInPart(modality=CT),
            "alone_pet": StandInPart(modality=PET),
        },
        modalities=[CT, PET],
    )
    mlps = {"image_mlp": MlpPart(), "text_mlp": MlpPart(input="text"), "fusion": FusionPart()}
    rows["two MLPs and a fusion, width 64"] = _step(mlps, modalities=[CT, EHR])
    attended = {**mlps, "fusion": FusionPart(mode="attention")}
    rows["two MLPs and cross-attention, width 64"] = _step(attended, modalities=[CT, EHR])
    light = {f"light decoder, {n} features": DecoderPart(features=n, style="light") for n in (8, 16)}
    rows |= {name: _step({"decoder": part}) for name, part in light.items()}
    if len(set(backbone.levels)) == 1:  # one grid: what a UNETR-style decoder reads
        rows |= {f"UNETR-style decoder, {n} features": _step({"decoder": DecoderPart(features=n)}) for n in (8, 16, 48)}
    return rows


def _steps(backbone: Backbone, steps: Mapping[str, Step]) -> dict[str, Choice]:
    return {name: _choice(backbone, step) for name, step in steps.items() if step.adapter.parts}


def _step(parts: Mapping[str, object], *, modalities: Iterable[str] = (CT,)) -> Step:
    task = SegmentationTask() if "decoder" in parts else PrognosisTask()
    return Step(name="inspect", task=task, modalities=list(modalities), adapter=Adapter(dict(parts)))


def _choice(backbone: Backbone, step: Step) -> Choice:
    try:
        counts = AdaptedModel(backbone, step, seed=0).parameter_counts()
    except FedgraftError as error:
        return Choice(None, None, None, str(error))
    mine = sum(n for part, n in counts.items() if step.name != "inspect" or part in step.adapter.parts)
    return Choice(mine, FLOAT_BYTES * mine, mine / (mine + parameter_count(backbone)))


def _sites(backbone: Backbone) -> dict[str, Site]:
    names = [name for name, _ in backbone.named_modules()]
    return {
        site: Site(pattern, sum(bool(re.fullmatch(pattern, name)) for name in names), backbone.blocks[site])
        for site, pattern in backbone.sites.items()
    }


def parameter_count(module: nn.Module) -> int:
    """Parameters of a module; buffers are none."""
    return sum(p.numel() for p in module.parameters())


def tensor_bytes(module: nn.Module) -> int:
    """Bytes of a module's state."""
    return bytes_of(module.state_dict().values())
