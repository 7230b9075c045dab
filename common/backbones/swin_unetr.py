"""SwinUnetr: the Swin transformer of Swin UNETR (arXiv 2201.01266), frozen, from any checkpoint that holds one.

Stages are MONAI's. Its decoder, 87 % of a Swin UNETR, is no part of this backbone: decoders are adapters.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch.nn.functional as F
from monai.networks.nets.swin_unetr import MERGING_MODE, BasicLayer
from torch import Tensor, nn

from common.backbones.base import Level, NativeView
from common.backbones.checkpoint import load_into, read_state, without_prefixes
from common.backbones.image import ImageBackbone, VoxelEmbed, transposed

STAGES = 4
PATCH = 2
SMALLEST = PATCH ** (STAGES + 1)  # voxels of one cell of the deepest level

_BLOCK = r"stages\.(\d+)\.blocks\.\d+"
SITES = {
    "image_attention": rf"{_BLOCK}\.attn\.(?:qkv|proj)",
    "image_qkv": rf"{_BLOCK}\.attn\.qkv",
    "image_feedforward": rf"{_BLOCK}\.mlp\.linear[12]",
}
# As they were put in front by DataParallel, SuPreM, MONAI's Swin UNETR and self-supervised heads, in any order.
PREFIXES = ("module.", "model.", "net.", "network.", "backbone.", "swinViT.", "swin_vit.", "encoder.")
_DROPPED = re.compile(
    r"(?:encoder|decoder)\d+(?:_pt)?\..*|out\..*"  # the convolutional half of a Swin UNETR
    r"|norm\.(?:weight|bias)|mask_token|(?:rotation|contrastive)_(?:head|pre)\..*|conv\..*"  # self-supervised heads
    r"|(?:organ_embedding|precls_conv\..*|GAP\..*|controller\..*|text_to_vision\..*)"  # SuPreM's class heads
)
_STAGE = re.compile(r"layers([1-4])\.0\.(?:0\.)?")
_RENAMED = {".mlp.fc1.": ".mlp.linear1.", ".mlp.fc2.": ".mlp.linear2."}
_COMPUTED = "relative_position_index"  # follows from the window, whatever a checkpoint says


@dataclass(frozen=True)
class SwinConfig:
    """Sizes of the encoder; the defaults are the Swin UNETR of every published checkpoint, viewed as SuPreM does.

    Args:
        feature_size: channels of a token; each stage doubles them.
    """

    feature_size: int = 48
    depths: tuple[int, int, int, int] = (2, 2, 2, 2)
    heads: tuple[int, int, int, int] = (3, 6, 12, 24)
    window: tuple[int, int, int] = (7, 7, 7)
    size: tuple[int, int, int] = (96, 96, 96)
    spacing_mm: tuple[float, float, float] = (1.5, 1.5, 1.5)
    ct_hu: tuple[float, float] = (-175.0, 250.0)


CONFIGS = {
    "base": SwinConfig(),
    "small": SwinConfig(feature_size=12, window=(4, 4, 4), size=(32, 32, 32), spacing_mm=(4.5, 4.5, 4.5)),
}


class SwinUnetr(ImageBackbone):
    """Swin UNETR's encoder. CT arrives scaled to [-1, 1] from ``native.ct_hu``, sides are multiples of 32.

    ``pyramid`` holds five scales, as MONAI's decoder takes them: the tokens and what follows each stage, normalised.
    A site's blocks are the four stages.
    """

    sites = SITES
    patch = (PATCH,) * 3

    def __init__(self, config: SwinConfig = CONFIGS["base"]):
        super().__init__()
        self.config = config
        self.image_dim = config.feature_size * 2**STAGES
        self.native = NativeView(config.spacing_mm, config.size, config.ct_hu)
        self.blocks = dict.fromkeys(SITES, STAGES)
        self.patch_embed = VoxelEmbed(config.feature_size, self.patch, self.multiple)
        self.stages = nn.ModuleList(_stage(config, number) for number in range(STAGES))

    @property
    def token_dim(self) -> int:
        """Channels of a token."""
        return self.config.feature_size

    @property
    def levels(self) -> tuple[Level, ...]:
        """Five levels, each with twice the channels and half the cells a side of the one before."""
        return tuple(Level(self.token_dim * 2**n, (PATCH * 2**n,) * 3) for n in range(STAGES + 1))

    @property
    def multiple(self) -> tuple[int, int, int]:
        """Sides are halved five times."""
        return (SMALLEST,) * 3

    def encode(self, tokens: list[Tensor], position: nn.Module | None) -> tuple[list[Tensor], Tensor]:
        """The five normalised scales and the mean of the deepest; ``position`` cannot be replaced."""
        if position is not None:
            self.own_position((1, 1, 1))  # says why not
        x = transposed(tokens[0].permute(0, 4, 1, 2, 3)).contiguous()
        states = [x]
        for stage in self.stages:
            x = stage(x.contiguous())
            states.append(x)
        pyramid = [transposed(_normalised(x)) for x in states]
        return pyramid, pyramid[-1].flatten(2).mean(dim=2)


def _normalised(x: Tensor) -> Tensor:
    """Layer norm over channels without parameters, as MONAI's Swin UNETR does before its decoder."""
    return F.layer_norm(x.movedim(1, -1), x.shape[1:2]).movedim(-1, 1)


def _stage(config: SwinConfig, number: int) -> nn.Module:
    return BasicLayer(
        dim=config.feature_size * 2**number,
        depth=config.depths[number],
        num_heads=config.heads[number],
        window_size=config.window,
        drop_path=[0.0] * config.depths[number],
        qkv_bias=True,
        downsample=MERGING_MODE["merging"],  # type: ignore[arg-type]  # the published weights know no other
    )


def load_checkpoint(backbone: SwinUnetr, path: str | Path) -> None:
    """Loads the encoder of a checkpoint: ``model_swinvit.pt``, SuPreM's, or a whole Swin UNETR.

    Raises:
        BackboneError: the file is missing, is no plain state dict, or its keys do not fit (all of them named).
    """
    computed = {name: x for name, x in backbone.state_dict().items() if name.endswith(_COMPUTED)}
    state = computed | translated(read_state(path))
    load_into(backbone, state, what="this Swin UNETR encoder", source=path)


def translated(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A checkpoint's tensors under our names: prefixes and heads off, stages counted from 0."""
    ours: dict[str, Tensor] = {}
    for full, tensor in state.items():
        name = without_prefixes(full, PREFIXES)
        if _DROPPED.fullmatch(name) or name.endswith(_COMPUTED):
            continue
        name = _STAGE.sub(lambda found: f"stages.{int(found[1]) - 1}.", name, count=1)
        for theirs, own in _RENAMED.items():
            name = name.replace(theirs, own)
        ours[name] = tensor
    return ours
