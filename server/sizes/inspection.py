"""How sizes are read: `python -m server inspect` on the console, and docs/results/sizes.md, the page of real sizes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import nn

from common.backbones import build_backbone
from common.backbones.base import Backbone
from common.config.run import BackboneSpec
from server.sizes.sizes import RELEASED, Choice, Sizes, backbone_sizes, parameter_count

UNETR = BackboneSpec(kind="unetr", config="vit_b")
SWIN = BackboneSpec(kind="swin_unetr", config="base")
REAL = {"UNETR ViT-B 96³": UNETR, "Swin UNETR fs48": SWIN, "CT-CLIP (CTViT and CXR-BERT)": RELEASED}
CLAIM = 0.08  # PEMMA's share of trainable parameters (arXiv 2404.13704); 0.5 to 8 % in arXiv 2504.13645

Row = Sequence[str]


def described(sizes: Sizes) -> str:
    """One backbone as text for the console."""
    levels = ", ".join(f"{level.channels} channels / {_by(level.stride)} voxels" for level in sizes.levels)
    head = [
        f"{sizes.kind} {sizes.config}: {sizes.parameters:,} parameters, {_mb(sizes.bytes)} MB in float32",
        f"native view: {_by(sizes.spacing_mm)} mm, {_by(sizes.native_size)} voxels, CT {sizes.ct_hu[0]:g} to "
        f"{sizes.ct_hu[1]:g} HU; token {_by(sizes.patch)}, sides are multiples of {_by(sizes.multiple)}",
        f"pyramid: {levels}",
    ]
    sites = [(name, str(site.layers), str(site.blocks), site.pattern) for name, site in sizes.sites.items()]
    tables = [
        _text(("site", "layers", "blocks", "pattern"), sites),
        _text(("adapter choice", "parameters", "share", "MB"), [_row(n, c) for n, c in sizes.choices.items()]),
    ]
    if sizes.steps:
        steps = [_row(name, choice) for name, choice in sizes.steps.items()]
        tables.append(_text(("step of the curriculum", "parameters", "share", "MB"), steps))
    return "\n\n".join(["\n".join(head), *tables])


def sizes_page() -> str:
    """docs/results/sizes.md: the real sizes, every adapter choice on them, and PEMMA's parts beside its claim."""
    sections = [
        "# What real sizes weigh",
        "Counted from the architectures on the meta device, no weights needed; float32, MB = 10^6 bytes. Regenerate "
        "with\n\n    python -m server inspect --table > docs/results/sizes.md\n\nand look at one backbone with "
        "`python -m server inspect backbone=swin_unetr`.",
        "## Frozen encoders, and the models that they come from",
        _markdown(("model", "parameters", "MB", "of the whole"), _models()),
        "A UNETR's feature size (fs) is its decoder's alone: the frozen encoder is the same for 16 and 48, and "
        "decoders are adapters here. "
        "DoRA is averaged exactly by a side factor of rank 32, which travels beside its factors.",
    ]
    for name, spec in REAL.items():
        rows = [_row(choice, found) for choice, found in backbone_sizes(spec).choices.items()]
        sections += [
            f"## Adapters on {name}",
            _markdown(
                ("adapter choice", "parameters that travel", "share of backbone + adapter", "MB a message"), rows
            ),
        ]
    sections += [
        f"## PEMMA's parts beside its claimed {CLAIM:.0%}",
        _markdown(("part", "parameters", "share of the whole model"), pemma_rows()),
        f"The parts do not add up to {CLAIM:.0%} of either model: the claim is the paper's own accounting, and its "
        "extension states a range of 0.5 to 8 %. Shares are of the whole MONAI model that PEMMA adapts, decoder "
        "included; the adapters of the Swin variant carry GroupNorm here and BatchNorm there, with as many parameters.",
    ]
    return "\n\n".join(sections) + "\n"


def _models() -> list[Row]:
    encoders = {name: _meta(spec) for name, spec in REAL.items()}
    rows: list[Row] = []
    for name, encoder in encoders.items():
        rows.append((f"{name}: frozen encoder", *_weight(encoder), ""))
        for whole, count in _wholes(name).items():
            rows.append((whole, f"{count:,}", _mb(4 * count), f"{parameter_count(encoder) / count:.1%} is encoder"))
    clip = encoders["CT-CLIP (CTViT and CXR-BERT)"]
    parts = {"image encoder (CTViT)": "visual_transformer", "text encoder (CXR-BERT)": "text_transformer",
             "visual projection, for zero-shot scores only": "to_visual_latent"}  # fmt: skip
    rows += [
        (f"of CT-CLIP: {part}", *_weight(clip.get_submodule(module)),
         f"{parameter_count(clip.get_submodule(module)) / parameter_count(clip):.1%}")
        for part, module in parts.items()
    ]  # fmt: skip
    return rows


def _wholes(name: str) -> dict[str, int]:
    """The whole MONAI models around an encoder: name -> parameters."""
    if name.startswith("UNETR"):
        return {f"UNETR 96³ fs{size}, whole": parameter_count(_monai_unetr(size)) for size in (16, 48)}
    if name.startswith("Swin"):
        return {"Swin UNETR fs48, whole": _swin_whole()}
    return {}


def pemma_rows() -> list[Row]:
    """PEMMA's trained parts, UNETR variant (r = 4 on queries and values) and Swin variant (r = 8), FACTS C1 and C2."""
    unetr, swin = _meta(UNETR), _meta(SWIN)
    rows: list[Row] = []
    for size in (16, 48):
        whole = parameter_count(_monai_unetr(size))
        parts = {
            "LoRA r=4 on queries and values": _lora(UNETR, ["image_query_value"], rank=4),
            "PET patch embedding": parameter_count(unetr.ct_stem()),
            "PET position table": parameter_count(unetr.get_submodule("position")),
            "PET skip": parameter_count(_pet_skip(size)),
        }
        rows += _shares(f"UNETR fs{size}", parts, whole)
    parts = {
        "LoRA r=8 on attention and feed-forward": _lora(SWIN, ["image_attention", "image_feedforward"], rank=8),
        "PET patch embedding": parameter_count(swin.ct_stem()),
        "PET skip": parameter_count(_pet_skip(48)),
        "projection 96 to 48": parameter_count(_conv(96, 48)),
        "ct and pet adapters": 2 * parameter_count(_stand_in(48)),
    }
    return rows + _shares("Swin UNETR fs48", parts, _swin_whole())


def _shares(model: str, parts: dict[str, int], whole: int) -> list[Row]:
    rows = [(f"{model}: {name}", f"{count:,}", f"{count / whole:.2%}") for name, count in parts.items()]
    total = sum(parts.values())
    return [*rows, (f"**{model}: all of them** ({whole:,} whole)", f"**{total:,}**", f"**{total / whole:.2%}**")]


def _lora(spec: BackboneSpec, sites: list[str], *, rank: int) -> int:
    from common.adapters.lora import inject
    from common.config.adapter import LoraPart
    from common.model.twin import frozen_twin

    with torch.device("meta"):
        backbone = build_backbone(spec)
        part = inject(frozen_twin(backbone), backbone, name="lora", spec=LoraPart(sites=sites, rank=rank))
        return sum(t.numel() for t in part.tensors().values() if isinstance(t, nn.Parameter))


def _meta(spec: BackboneSpec) -> Backbone:
    with torch.device("meta"):
        return build_backbone(spec)


def _monai_unetr(feature_size: int) -> nn.Module:
    from monai.networks.nets.unetr import UNETR as MonaiUnetr

    with torch.device("meta"):
        return MonaiUnetr(in_channels=1, out_channels=3, img_size=96, feature_size=feature_size)


def _swin_whole() -> int:
    from monai.networks.nets.swin_unetr import SwinUNETR

    # Without blocks: MONAI reads a number from a tensor while it makes them, which the meta device does not hold.
    with torch.device("meta"):
        around = SwinUNETR(in_channels=1, out_channels=3, feature_size=48, depths=(0, 0, 0, 0))
    decoder = parameter_count(around) - parameter_count(around.swinViT)
    return decoder + parameter_count(_meta(SWIN))


def _pet_skip(features: int) -> nn.Module:
    from monai.networks.blocks.unetr_block import UnetrBasicBlock

    with torch.device("meta"):
        return UnetrBasicBlock(3, 1, features, kernel_size=3, stride=1, norm_name="instance", res_block=True)


def _conv(inputs: int, outputs: int) -> nn.Module:
    return nn.Conv3d(inputs, outputs, kernel_size=1, device="meta")


def _stand_in(dim: int) -> nn.Module:
    return nn.Sequential(_conv(dim, dim), nn.GroupNorm(4, dim, device="meta"), nn.ReLU(), _conv(dim, 2 * dim))


# ------------------------------------------------------------------------------------------------------------ words


def _row(name: str, choice: Choice) -> Row:
    if choice.parameters is None or choice.bytes is None or choice.share is None:
        return (name, "does not fit", "", choice.reason)
    return (name, f"{choice.parameters:,}", f"{choice.share:.2%}", _mb(choice.bytes))


def _weight(module: nn.Module) -> tuple[str, str]:
    count = parameter_count(module)
    return f"{count:,}", _mb(4 * count)


def _mb(size: int) -> str:
    return f"{size / 1e6:,.2f}"


def _by(values: Iterable[float]) -> str:
    return " x ".join(f"{value:g}" for value in values)


def _text(head: Row, rows: Sequence[Row]) -> str:
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in (head, *rows)
    )


def _markdown(head: Row, rows: Sequence[Row]) -> str:
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
