"""Resolution: a task's own CT patch embedding and position parameters (UNICON's resolution adaptation)."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from torch import Tensor, nn

from common.backbones.base import Backbone
from common.backbones.tokens import whole_patches
from common.errors import AdapterError

Voxels = tuple[int, int, int]


class Resolution(nn.Module):
    """Stands in for the backbone's patch embedding; ``position``, where there is one, for its position parameters.

    Args:
        embed: (B, 1, D, H, W) to tokens (B, d, h, w, C).
    """

    def __init__(self, embed: nn.Module, position: nn.Module | None):
        super().__init__()
        self.embed = embed
        self.position = position

    def forward(self, volume: Tensor) -> Tensor:
        return self.embed(volume)


class FreshEmbed(nn.Module):
    """Patches of another size than the backbone's: one linear layer and a norm, from seeded random values."""

    def __init__(self, dim: int, patch: Voxels):
        super().__init__()
        self.patch = patch
        self.embed = nn.Conv3d(1, dim, kernel_size=patch, stride=patch)
        self.norm = nn.LayerNorm(dim)

    def forward(self, volume: Tensor) -> Tensor:
        whole_patches(volume.shape[2:], self.patch)
        return self.norm(self.embed(volume).movedim(1, -1))


def build_resolution(backbone: Backbone, *, patch: Sequence[int] | None, position: bool, window: Voxels) -> Resolution:
    """A resolution part for a step's window.

    Args:
        patch: None: the backbone's own, starting as a copy of its embedding, so that attaching changes no output bit.
        window: voxels (depth, height, width) that the network sees at once; positions are made to fit it.
    """
    own = adapted_patch(backbone, patch)
    if own == backbone.patch:
        embed: nn.Module = copy.deepcopy(backbone.ct_stem()).requires_grad_(True)
    else:
        embed = FreshEmbed(backbone.token_dim, own)
    depth, height, width = (side // step for side, step in zip(window, own, strict=True))
    return Resolution(embed, backbone.own_position((depth, height, width)) if position else None)


def adapted_patch(backbone: Backbone, patch: Sequence[int] | None) -> Voxels:
    """The patch that a step works with. Raises AdapterError where the backbone cannot take another."""
    if patch is None or tuple(patch) == tuple(backbone.patch):
        return backbone.patch
    if len(patch) != 3 or min(patch) < 1:
        raise AdapterError(f"A resolution part's patch {list(patch)} must be three positive numbers of voxels.")
    if {level.stride for level in backbone.levels} != {tuple(backbone.patch)}:
        raise AdapterError(
            f"{type(backbone).__name__} has hidden states of several resolutions, tied to its patch "
            f"{list(backbone.patch)}; leave the resolution part's patch at null."
        )
    depth, height, width = patch
    return depth, height, width
