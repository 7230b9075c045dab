"""Decoders: a frozen encoder's hidden states, and a full-resolution CT skip, to voxel logits.

`Decoder` (UNETR): the deepest hidden states meet on the token grid; each level doubles the resolution and adds a
shallower state; the last level reaches the voxels, where the skip joins. `LightDecoder` is narrow and takes any
pyramid, `LinearDecoder` is one layer. No batch norm: its statistics would mix centers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from monai.networks.blocks import UnetResBlock, UnetrPrUpBlock, UnetrUpBlock
from monai.networks.blocks.dynunet_block import get_conv_layer
from torch import Tensor, nn

from common.backbones.base import Level

STATES = 4
BACKGROUND_LOG_ODDS = 4.0  # against each structure: about 2 % of the voxels each
NORM = "instance"
ACT = ("leakyrelu", {"inplace": True, "negative_slope": 0.01})
WIDEST = 4  # levels are at most this many times as wide as full resolution: low grids hold most of the weights

Scale = tuple[int, ...]
Voxels = Sequence[int]


class Decoder(nn.Module):
    """Hidden states and a CT volume to logits.

    Args:
        dim: channels of a hidden state.
        patch: (depth, height, width) voxels of a token. Powers of two use transposed convolutions; any other patch
            (CT-CLIP's 10 x 20 x 20) resizes feature maps trilinearly.
        features: channels at full resolution.
        outputs: channels of the logits, background included.
        deep_supervision: whether coarser levels answer too in training (`deeper`).
    """

    def __init__(
        self, dim: int, patch: tuple[int, int, int], *, features: int, outputs: int, deep_supervision: bool = False
    ):
        super().__init__()
        self.features = features
        self.patch = patch
        scales = level_scales(patch)
        levels = len(patch_levels := scales or [(1, 1, 1)] * _doublings(patch))
        widths = [features * min(2 ** (levels - level), WIDEST) for level in range(levels + 1)]
        skipped = min(STATES - 1, levels - 1)
        self.bottleneck = nn.Conv3d(dim * (STATES - skipped), widths[0], kernel_size=1)
        make_lift, make_up = (_Lift, _Up) if scales else (_ResizeLift, _ResizeUp)
        self.lifts = nn.ModuleList(
            make_lift(dim, widths[level], patch_levels[:level]) for level in range(1, skipped + 1)
        )
        steps = list(zip(pairwise(widths), patch_levels, strict=True))[:-1]
        self.ups = nn.ModuleList(
            make_up(*width, scale) if level <= skipped else make_lift(*width, [scale])
            for level, (width, scale) in enumerate(steps, start=1)
        )
        self.last = make_lift(widths[-2], features, patch_levels[-1:])
        self.ct_skip = full_resolution(1, features)
        self.join = full_resolution(2 * features, features)
        self.out = nn.Conv3d(features, outputs, kernel_size=1)
        expect_background(self.out)
        self.hints = _hints([after for (_, after), _ in steps], outputs) if deep_supervision else None
        self.deeper: list[Tensor] = []

    def forward(self, pyramid: Sequence[Tensor], skip: Tensor) -> Tensor:
        """Logits (B, outputs, D, H, W).

        Args:
            pyramid: four hidden states from shallow to deep, each (B, dim, d, h, w).
            skip: (B, features, D, H, W), from `skip_from` and, where there is one, the new modality's skip.
        """
        skipped, levels = len(self.lifts), len(self.ups) + 1
        deep, shallow = pyramid[skipped:], pyramid[:skipped][::-1]
        *sizes, full = level_sizes(deep[0].shape[2:], skip.shape[2:], levels)
        x = self.bottleneck(torch.cat(list(deep), dim=1))
        found = []
        for level, (up, size) in enumerate(zip(self.ups, sizes, strict=True)):
            x = up(x, self.lifts[level](shallow[level], size), size) if level < skipped else up(x, size)
            found.append(x)
        self.deeper = _answered(self.hints, found) if self.training else []
        return self.out(self.join(torch.cat((self.last(x, full), skip), dim=1)))

    def skip_from(self, ct: Tensor) -> Tensor:
        """The full-resolution CT skip (B, features, D, H, W) of a volume (B, 1, D, H, W)."""
        return self.ct_skip(ct)


class LightDecoder(nn.Module):
    """A narrow decoder for pyramids of several resolutions, as Swin UNETR's, whose own decoder is 87 % of the model.

    Every level is brought to ``4 x features`` channels, and from the deepest on resized, added to the next one and
    mixed by a depthwise and a pointwise convolution: with 8 features 62 k weights on Swin UNETR of feature size 48,
    0.1 % of its 62.3 M (its own decoder: 54 M).
    """

    def __init__(self, levels: Sequence[Level], *, features: int, outputs: int, deep_supervision: bool = False):
        super().__init__()
        self.features = features
        width = WIDEST * features
        self.laterals = nn.ModuleList(nn.Conv3d(level.channels, width, kernel_size=1) for level in levels)
        self.mixers = nn.ModuleList(_separable(width) for _ in levels)
        self.last = nn.Conv3d(width, features, kernel_size=1)
        self.ct_skip = full_resolution(1, features)
        self.join = full_resolution(2 * features, features)
        self.out = nn.Conv3d(features, outputs, kernel_size=1)
        expect_background(self.out)
        self.hints = _hints([width] * len(levels), outputs) if deep_supervision else None
        self.deeper: list[Tensor] = []

    def forward(self, pyramid: Sequence[Tensor], skip: Tensor) -> Tensor:
        """Logits (B, outputs, D, H, W); arguments as `Decoder.forward`, levels of any resolutions."""
        x: Tensor | None = None
        mixed = []
        for level, lateral, mixer in reversed(list(zip(pyramid, self.laterals, self.mixers, strict=True))):
            found = lateral(level)
            x = mixer(found if x is None else _resize(x, found.shape[2:]) + found)
            mixed.append(x)
        self.deeper = _answered(self.hints, mixed) if self.training else []
        return self.out(self.join(torch.cat((_resize(self.last(x), skip.shape[2:]), skip), dim=1)))

    def skip_from(self, ct: Tensor) -> Tensor:
        """The full-resolution CT skip (B, features, D, H, W) of a volume (B, 1, D, H, W)."""
        return self.ct_skip(ct)


class LinearDecoder(nn.Module):
    """One linear layer on the deepest hidden state, resized to the voxels: adaptation inside the model and no more."""

    features = 0

    def __init__(self, levels: Sequence[Level], *, outputs: int):
        super().__init__()
        self.out = nn.Conv3d(levels[-1].channels, outputs, kernel_size=1)
        expect_background(self.out)

    def forward(self, pyramid: Sequence[Tensor], skip: Tensor) -> Tensor:
        """Logits (B, outputs, D, H, W); of the skip only the size is used."""
        return _resize(self.out(pyramid[-1]), skip.shape[2:])

    def skip_from(self, ct: Tensor) -> Tensor:
        """Nothing of the CT: (B, 0, D, H, W)."""
        return ct[:, :0]


def _hints(widths: Sequence[int], outputs: int) -> nn.ModuleList:
    """One layer to logits for each level, coarse to fine."""
    layers = [nn.Conv3d(width, outputs, kernel_size=1) for width in widths]
    for layer in layers:
        expect_background(layer)
    return nn.ModuleList(layers)


def _answered(hints: nn.ModuleList | None, levels: Sequence[Tensor]) -> list[Tensor]:
    """What the levels (coarse to fine) answer, the finest first; nothing without deep supervision."""
    return [] if hints is None else [hint(x) for hint, x in zip(hints, levels, strict=True)][::-1]


def _separable(width: int) -> nn.Sequential:
    """A depthwise and a pointwise convolution, group norm (the deepest level may be one cell) and leaky ReLU."""
    return nn.Sequential(
        nn.Conv3d(width, width, kernel_size=3, padding=1, groups=width),
        nn.Conv3d(width, width, kernel_size=1),
        nn.GroupNorm(WIDEST, width),
        nn.LeakyReLU(0.01, inplace=True),
    )


def full_resolution(inputs: int, outputs: int) -> nn.Module:
    """One convolution, instance norm and leaky ReLU. One, not two: most of a step's time goes here."""
    return get_conv_layer(3, inputs, outputs, kernel_size=3, act=ACT, norm=NORM, conv_only=False)


def level_scales(patch: Sequence[int]) -> list[Scale]:
    """Upsampling factors per level, coarse to fine, each 1 or 2 per axis; empty where a side is no power of two.

    Levels follow the largest side; a shorter axis waits, so that feature maps become isotropic first:
    ``(4, 8, 8) -> [(1, 2, 2), (2, 2, 2), (2, 2, 2)]``.
    """
    if any(side < 1 or side & (side - 1) for side in patch):
        return []
    exponents = [side.bit_length() - 1 for side in patch]
    levels = max(exponents)
    if levels == 0:
        return [(1, 1, 1)]
    return [tuple(2 if level >= levels - e else 1 for e in exponents) for level in range(levels)]


def _doublings(patch: Sequence[int]) -> int:
    return max(1, round(math.log2(max(patch))))


def level_sizes(grid: Voxels, full: Voxels, levels: int) -> list[list[int]]:
    """Sizes after each level: halves of the full size, never below the token grid, ending at the full size."""
    return [
        [max(g, round(f / 2 ** (levels - level))) for g, f in zip(grid, full, strict=True)]
        for level in range(1, levels + 1)
    ]


class _Lift(nn.Module):
    """A hidden state from the token grid to its level, by transposed convolutions."""

    def __init__(self, inputs: int, outputs: int, scales: Sequence[Scale]):
        super().__init__()
        widths = [inputs] + [outputs] * len(scales)
        self.blocks = nn.Sequential(
            *(
                UnetrPrUpBlock(3, before, after, 0, kernel_size=3, stride=1, upsample_kernel_size=scale, norm_name=NORM)
                for (before, after), scale in zip(pairwise(widths), scales, strict=True)
            )
        )

    def forward(self, x: Tensor, size: Voxels) -> Tensor:
        return self.blocks(x)


class _Up(nn.Module):
    """One level up, joined with what it finds there."""

    def __init__(self, before: int, after: int, scale: Scale):
        super().__init__()
        self.block = UnetrUpBlock(3, before, after, kernel_size=3, upsample_kernel_size=scale, norm_name=NORM)

    def forward(self, x: Tensor, skip: Tensor, size: Voxels) -> Tensor:
        return self.block(x, skip)


class _ResizeLift(nn.Module):
    """A hidden state to its level by a 1 x 1 x 1 convolution on the token grid and a trilinear resize."""

    def __init__(self, inputs: int, outputs: int, scales: Sequence[Scale]):
        super().__init__()
        self.project = nn.Conv3d(inputs, outputs, kernel_size=1)

    def forward(self, x: Tensor, size: Voxels) -> Tensor:
        return _resize(self.project(x), size)


class _ResizeUp(nn.Module):
    """As `_Up`, for a level that is no whole multiple of the one below."""

    def __init__(self, before: int, after: int, scale: Scale):
        super().__init__()
        self.project = nn.Conv3d(before, after, kernel_size=1)
        self.block = UnetResBlock(3, 2 * after, after, kernel_size=3, stride=1, norm_name=NORM)

    def forward(self, x: Tensor, skip: Tensor, size: Voxels) -> Tensor:
        return self.block(torch.cat((_resize(self.project(x), size), skip), dim=1))


def _resize(x: Tensor, size: Voxels) -> Tensor:
    if tuple(x.shape[2:]) == tuple(size):
        return x
    return F.interpolate(x, size=list(size), mode="trilinear", align_corners=False)


def expect_background(layer: nn.Conv3d) -> None:
    """Start from the prior that nearly every voxel is background (focal loss' initialisation, arXiv 1708.02002).

    Without it the first rounds only learn how rare tumors are, and the decoder settles on predicting none.
    """
    assert layer.bias is not None
    with torch.no_grad():
        layer.bias.zero_()
        layer.bias[0] = BACKGROUND_LOG_ODDS
