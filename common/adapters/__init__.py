"""Adapter parts: what a step grafts onto the frozen backbone, and the only thing that travels.

`build_part` turns a part's spec into a module; `lora` works inside the backbone's twin and is injected by
`common.model`. Names and kinds are closed: an unknown one is refused with the options.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from common.backbones.base import Backbone
from common.design import Layout
from common.errors import UnknownName


@dataclass(frozen=True)
class Surroundings:
    """What a part must fit.

    Args:
        backbone: gives the patch and the widths.
        outputs: channels or columns that the task asks of the last layer.
        joined: width of the embeddings side by side, in front of a fusion.
        layout: the columns of a linear part.
    """

    backbone: Backbone
    outputs: int
    joined: int
    layout: Layout | None = None


# Parts are imported where they are built: peft and MONAI take seconds to import.


def _decoder(spec: Any, around: Surroundings) -> nn.Module:
    from common.adapters.decoder import Decoder

    backbone = around.backbone
    return Decoder(backbone.image_dim, backbone.patch, features=spec.features, outputs=around.outputs)


def _fusion(spec: Any, around: Surroundings) -> nn.Module:
    from common.adapters.fusion import Fusion

    return Fusion(around.joined, spec.width, dropout=spec.dropout)


def _linear(spec: Any, around: Surroundings) -> nn.Module:
    from common.linear import Linear

    assert around.layout is not None  # the model lays out the columns before it builds the part
    return Linear(around.layout, around.outputs)


def _mlp(spec: Any, around: Surroundings) -> nn.Module:
    from common.adapters.mlp import Mlp

    dims = {"image": around.backbone.image_dim, "text": around.backbone.text_dim}
    if spec.input not in dims:
        raise UnknownName("input of an mlp part", spec.input, dims)
    return Mlp(dims[spec.input], spec.width, dropout=spec.dropout)


def _patch_embed(spec: Any, around: Surroundings) -> nn.Module:
    from common.adapters.patch_embed import build_stem

    return build_stem(around.backbone, init=spec.init, modality=spec.modality)


def _skip(spec: Any, around: Surroundings) -> nn.Module:
    from common.adapters.skip import Skip

    return Skip(spec.features)


PARTS: dict[str, Callable[[Any, Surroundings], nn.Module]] = {
    "decoder": _decoder,
    "fusion": _fusion,
    "linear": _linear,
    "mlp": _mlp,
    "patch_embed": _patch_embed,
    "skip": _skip,
}
INJECTED = frozenset({"lora"})


def build_part(spec: Any, around: Surroundings) -> nn.Module:
    """The module of one part. Raises UnknownName for a kind that is not a part of its own."""
    if spec.kind not in PARTS:
        raise UnknownName("adapter part", spec.kind, {*PARTS, *INJECTED})
    return PARTS[spec.kind](spec, around)
