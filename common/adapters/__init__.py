"""Adapter parts: what a step grafts onto the frozen backbone, and the only thing that travels.

`build_part` turns a part's spec into a module; `lora` and `full` work inside the backbone's twin and are put there by
`common.model.adapted`. Names and kinds are closed: an unknown one is refused with the options.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from common.adapters.compatibility import MODES, STYLES
from common.errors import AdapterError, UnknownName
from common.plugins import Registry

if TYPE_CHECKING:
    from torch import nn

    from common.backbones.base import Backbone, Level
    from common.exact.columns import Layout
    from common.exact.voxels import VoxelColumns

Voxels = tuple[int, int, int]


@dataclass(frozen=True)
class Surroundings:
    """What a part must fit.

    Args:
        backbone: gives the widths.
        outputs: channels or columns that the task asks of the last layer.
        embeddings: widths of the embeddings in front of a fusion, in order.
        patch: voxels of a token; another than the backbone's where a resolution part says so.
        window: voxels that the network sees at once.
        layout: the columns of a linear part.
        voxels: the columns of a linear part for voxels.
        volumes: images that a case may have.
    """

    backbone: Backbone
    outputs: int
    embeddings: tuple[int, ...]
    patch: Voxels
    window: Voxels
    layout: Layout | None = None
    voxels: VoxelColumns | None = None
    volumes: int = 1

    @property
    def levels(self) -> tuple[Level, ...]:
        """The pyramid's levels, at the adapted patch."""
        from common.backbones.base import Level  # torch is imported where parts are built

        levels = self.backbone.levels
        return levels if self.patch == self.backbone.patch else tuple(Level(x.channels, self.patch) for x in levels)


# Parts are imported where they are built: peft and MONAI take seconds to import.


def _decoder(spec: Any, around: Surroundings) -> nn.Module:
    from common.adapters.decoder import STATES, Decoder, LightDecoder, LinearDecoder

    levels = around.levels
    if spec.style not in STYLES:
        raise UnknownName("style of a decoder part", spec.style, STYLES)
    on_one_grid = len(levels) == STATES and len(set(levels)) == 1
    if spec.style == "light" or (spec.style == "auto" and not on_one_grid):
        return LightDecoder(
            levels, features=spec.features, outputs=around.outputs, deep_supervision=spec.deep_supervision
        )
    if spec.style == "linear":
        return LinearDecoder(levels, outputs=around.outputs)
    if not on_one_grid:
        raise AdapterError(
            f"A UNETR-style decoder reads {STATES} hidden states on one grid; {type(around.backbone).__name__} gives "
            f"{len(levels)} of several resolutions: set the decoder part's style to light."
        )
    return Decoder(
        levels[0].channels,
        around.patch,
        features=spec.features,
        outputs=around.outputs,
        deep_supervision=spec.deep_supervision,
    )


def _fusion(spec: Any, around: Surroundings) -> nn.Module:
    from common.adapters.fusion import Fusion

    if spec.mode not in MODES:
        raise UnknownName("mode of a fusion part", spec.mode, MODES)
    tokens = around.levels[-1].channels if spec.mode == "attention" else None
    return Fusion(around.embeddings, spec.width, dropout=spec.dropout, tokens=tokens)


def _join(spec: Any, around: Surroundings) -> nn.Module:
    from common.adapters.pet_pathway import Projection

    return Projection(around.backbone.token_dim)


def _linear(spec: Any, around: Surroundings) -> nn.Module:
    from common.exact.step import Linear

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

    return build_stem(around.backbone, init=spec.init, modality=spec.modality, patch=around.patch)


def _resolution(spec: Any, around: Surroundings) -> nn.Module:
    from common.adapters.resolution import build_resolution

    return build_resolution(around.backbone, patch=spec.patch, position=spec.position, window=around.window)


def _skip(spec: Any, around: Surroundings) -> nn.Module:
    from common.adapters.pet_pathway import Skip

    return Skip(spec.features)


def _stand_in(spec: Any, around: Surroundings) -> nn.Module:
    from common.adapters.pet_pathway import StandIn

    return StandIn(around.backbone.token_dim)


def _unet(spec: Any, around: Surroundings) -> nn.Module:
    from common.adapters.unet import Unet

    return Unet(around.volumes, around.outputs, widths=spec.widths)


def _uptake(spec: Any, around: Surroundings) -> nn.Module:
    from common.adapters.pet_pathway import Uptake

    return Uptake(spec.width, around.outputs)


def _voxel_linear(spec: Any, around: Surroundings) -> nn.Module:
    from common.exact.voxels import VoxelLinear

    assert around.voxels is not None  # the model lays out the columns before it builds the part
    return VoxelLinear(around.voxels, around.outputs - 1)


PARTS: Registry[Callable[[Any, Surroundings], nn.Module]] = Registry(
    "adapter part",
    "build",
    {
        "decoder": _decoder,
        "fusion": _fusion,
        "join": _join,
        "linear": _linear,
        "mlp": _mlp,
        "patch_embed": _patch_embed,
        "resolution": _resolution,
        "skip": _skip,
        "stand_in": _stand_in,
        "unet": _unet,
        "uptake": _uptake,
        "voxel_linear": _voxel_linear,
    },
)
INJECTED = frozenset({"full", "lora"})


def build_part(spec: Any, around: Surroundings) -> nn.Module:
    """The module of one part. Raises UnknownName for a kind that is not a part of its own."""
    if spec.kind not in PARTS:
        raise UnknownName("adapter part", spec.kind, {*PARTS, *INJECTED})
    return PARTS[spec.kind](spec, around)
