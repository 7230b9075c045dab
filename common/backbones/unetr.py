"""Unetr: the vision transformer of UNETR (arXiv 2103.10504), frozen, from a MONAI or plain UNETR checkpoint.

Blocks are MONAI's with queries, keys and values as layers of their own, so that PEMMA's LoRA finds queries and values.
The convolutional decoder of a checkpoint, which is where its feature size (16, 48) lies, is no part of this backbone:
decoders are adapters.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from monai.networks.blocks.transformerblock import TransformerBlock
from torch import Tensor, nn

from common.backbones.base import NativeView
from common.backbones.checkpoint import load_into, read_state, without_prefixes
from common.backbones.image import ImageBackbone, VoxelEmbed
from common.config.backbones import MULTIPLES

Triple = tuple[int, int, int]

_BLOCK = r"layers\.(\d+)"
SITES = {
    "image_attention": rf"{_BLOCK}\.attn\.(?:to_q|to_k|to_v|out_proj)",
    "image_query_value": rf"{_BLOCK}\.attn\.(?:to_q|to_v)",
    "image_feedforward": rf"{_BLOCK}\.mlp\.linear[12]",
}
PREFIXES = ("module.", "model.", "net.", "network.", "backbone.", "unetr.", "encoder.", "vit.")
_DROPPED = re.compile(
    r"(?:encoder|decoder)\d+(?:_pt)?\..*|out\..*"  # the convolutional half of a UNETR
    r"|(?:patch_embedding\.)?cls_token|blocks\.\d+\.(?:norm_)?cross_attn\..*"  # never used, kept by older MONAI
)
_RENAMED = {
    "blocks.": "layers.",
    "patch_embedding.patch_embeddings.": "patch_embed.proj.",
    "patch_embedding.position_embeddings": "position.table",
    ".attn.proj_": ".attn.to_",
}


@dataclass(frozen=True)
class UnetrConfig:
    """Sizes of the encoder; the defaults are UNETR's ViT-B at 96 voxels a side, viewed as PEMMA does.

    Args:
        image_size: (depth, height, width) voxels that the position table was trained on; other sizes interpolate it.
    """

    image_size: Triple = (96, 96, 96)
    patch: Triple = MULTIPLES["unetr"]["vit_b"]
    hidden: int = 768
    feedforward: int = 3072
    layers: int = 12
    heads: int = 12
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)
    ct_hu: tuple[float, float] = (-200.0, 200.0)


CONFIGS = {
    "vit_b": UnetrConfig(),
    "small": UnetrConfig(
        (48, 48, 48), MULTIPLES["unetr"]["small"], hidden=48, feedforward=96, layers=4, heads=4, spacing_mm=(3, 3, 3)
    ),
}


class PositionTable(nn.Module):
    """Learned positions of a token grid; another grid interpolates them.

    Args:
        grid: (d, h, w) tokens. The table's rows are in MONAI's order: w slowest, d fastest.
    """

    def __init__(self, grid: Triple, dim: int):
        super().__init__()
        self.grid = grid
        self.table = nn.Parameter(torch.zeros(1, grid[0] * grid[1] * grid[2], dim))
        nn.init.trunc_normal_(self.table, std=0.02)

    def forward(self, d: int, h: int, w: int) -> Tensor:
        """Positions (d, h, w, C)."""
        table = self.table.reshape(*self.grid[::-1], -1).permute(2, 1, 0, 3)
        if (d, h, w) == self.grid:
            return table
        resized = F.interpolate(table.movedim(-1, 0)[None], size=(d, h, w), mode="trilinear", align_corners=False)
        return resized[0].movedim(0, -1)

    def fit_for(self, grid: Triple) -> PositionTable:
        """A trainable table of another grid that starts as this one, interpolated."""
        with torch.no_grad():
            rows = self(*grid)
            other = PositionTable(grid, rows.shape[-1])
            other.table.copy_(rows.permute(2, 1, 0, 3).reshape(other.table.shape))
        return other.to(rows.device)


class Unetr(ImageBackbone):
    """UNETR's encoder. CT arrives scaled to [-1, 1] from ``native.ct_hu``, sides are multiples of the patch."""

    sites = SITES
    takes_sequence = True

    def __init__(self, config: UnetrConfig = CONFIGS["vit_b"]):
        super().__init__()
        self.config = config
        self.patch, self.image_dim = config.patch, config.hidden
        self.native = NativeView(config.spacing_mm, config.image_size, config.ct_hu)
        self.blocks = dict.fromkeys(SITES, config.layers)
        self.patch_embed = VoxelEmbed(config.hidden, config.patch, config.patch)
        grid = tuple(side // patch for side, patch in zip(config.image_size, config.patch, strict=True))
        self.position = PositionTable(grid, config.hidden)  # type: ignore[arg-type]
        self.layers = nn.ModuleList(_block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.hidden)

    def own_position(self, grid: Triple) -> nn.Module:
        """A trainable position table of that token grid that starts as the frozen one, interpolated."""
        return self.position.fit_for(grid)

    def encode(self, tokens: list[Tensor], position: nn.Module | None) -> tuple[list[Tensor], Tensor]:
        """UNETR's four states (for 12 blocks: after the 4th, 7th and 10th, and the last, normalised) and their mean."""
        grid = tokens[0].shape[1:4]
        positions = (position or self.position)(*grid)
        x = torch.cat([(part + positions).flatten(1, 3) for part in tokens], dim=1)
        states, taken = [], {self.config.layers * quarter // 4 for quarter in (1, 2, 3)}
        for number, block in enumerate(self.layers):
            x = block(x)
            if number in taken:
                states.append(x)
        states.append(self.norm(x))
        pyramid = [x[:, : grid.numel()].transpose(1, 2).unflatten(2, grid) for x in states]
        return pyramid, states[-1].mean(dim=1)


def _block(config: UnetrConfig) -> nn.Module:
    block = TransformerBlock(
        config.hidden, config.feedforward, config.heads, use_combined_linear=False, use_flash_attention=True
    )
    block.norm_cross_attn = nn.Identity()  # type: ignore[assignment]  # MONAI makes its weights and never uses them
    return block


def load_checkpoint(backbone: Unetr, path: str | Path) -> None:
    """Loads the encoder of a UNETR or ViT checkpoint (MONAI's names, with whatever prefix).

    Raises:
        BackboneError: the file is missing, is no plain state dict, or its keys do not fit (all of them named).
    """
    load_into(backbone, translated(read_state(path)), what="this UNETR encoder", source=path)


def translated(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A checkpoint's tensors under our names: prefixes off, decoder left out, fused query-key-value layers cut up."""
    ours: dict[str, Tensor] = {}
    for full, tensor in state.items():
        name = without_prefixes(full, PREFIXES)
        if _DROPPED.fullmatch(name):
            continue
        for theirs, own in _RENAMED.items():
            name = name.replace(theirs, own)
        if name.endswith(".attn.qkv.weight"):
            stem = name.removesuffix("qkv.weight")
            ours |= {f"{stem}to_{part}.weight": x for part, x in zip("qkv", tensor.chunk(3), strict=True)}
        elif name.startswith("patch_embed.proj.1."):  # a linear layer over flattened patches, the older choice
            ours[name.replace(".1.", ".")] = _as_kernel(tensor)
        else:
            ours[name] = tensor
    return ours


def _as_kernel(tensor: Tensor) -> Tensor:
    """A linear patch embedding's weight (C, p * p * p) as a convolution's (C, 1, p, p, p); its bias as it is."""
    if tensor.ndim == 1:
        return tensor
    side = round(tensor.shape[1] ** (1 / 3))
    return tensor.reshape(-1, 1, side, side, side) if side**3 == tensor.shape[1] else tensor
