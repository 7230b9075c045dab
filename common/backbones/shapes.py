"""ShapesUnet: a small convolutional U-Net that was pre-trained on random shapes only, frozen.

It never saw an image of a patient: `simulations.pretraining.shapes` renders random label maps twice with independent
contrasts and asks that voxels of one label look alike. What it gives is a pyramid of decoded features from full
resolution down, for a decoder, or for a linear head that is fitted exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from common.backbones.base import Level, NativeView
from common.backbones.checkpoint import load_into, read_state
from common.backbones.image import ImageBackbone
from common.backbones.tokens import whole_patches

DEEPEST = 8  # voxels of one cell of the deepest level
CONVOLUTIONS = "image_convolutions"
SITES = {CONVOLUTIONS: r"stages\.(\d+)\.\d+\.0"}


@dataclass(frozen=True)
class ShapesConfig:
    """Sizes of the network.

    Args:
        token: channels of the first layer, at full resolution.
        full: decoded channels at full resolution.
        widths: channels at 1/2, 1/4 and 1/8 of the resolution, on the way down and up again.
    """

    token: int = 8
    full: int = 24
    widths: tuple[int, int, int] = (24, 48, 96)
    size: tuple[int, int, int] = (64, 64, 64)
    spacing_mm: tuple[float, float, float] = (3.0, 3.0, 3.0)
    ct_hu: tuple[float, float] = (-200.0, 300.0)


CONFIGS = {"base": ShapesConfig(), "small": ShapesConfig(token=4, full=8, widths=(8, 12, 16))}


class VoxelTokens(nn.Module):
    """Volume (B, 1, D, H, W) to one token a voxel (B, D, H, W, C)."""

    def __init__(self, channels: int, multiple: tuple[int, int, int]):
        super().__init__()
        self.multiple = multiple
        self.first = nn.Conv3d(1, channels, kernel_size=3, padding=1)

    def forward(self, volume: Tensor) -> Tensor:
        whole_patches(volume.shape[-3:], self.multiple)
        return self.first(volume).movedim(1, -1)


class ShapesUnet(ImageBackbone):
    """A U-Net of three halvings. CT arrives scaled to [-1, 1] from ``native.ct_hu``; sides are multiples of 8.

    ``pyramid``: decoded features at full, 1/2 and 1/4 resolution, and the deepest of the way down. A site's blocks are
    the six stages: three down, three up. Batch norm is a fixed function of a frozen network: see `Backbone.freeze`.
    """

    patch = (1, 1, 1)
    sites = SITES

    _is_frozen = False

    def __init__(self, config: ShapesConfig = CONFIGS["base"]):
        super().__init__()
        self.config = config
        half, quarter, eighth = config.widths
        self.native = NativeView(config.spacing_mm, config.size, config.ct_hu)
        self.image_dim = eighth
        self.patch_embed = VoxelTokens(config.token, self.multiple)
        self.stages = nn.ModuleList(
            [
                _stage(config.token, half, stride=2),
                _stage(half, quarter, stride=2),
                _stage(quarter, eighth, stride=2),
                _stage(eighth + quarter, quarter),
                _stage(quarter + half, half),
                nn.Sequential(_layer(half + config.token, config.full, kernel=1)),
            ]
        )
        self.blocks = {CONVOLUTIONS: len(self.stages)}

    def freeze(self) -> ShapesUnet:
        """As every backbone; from here on `train` moves no statistics of batch norm."""
        self._is_frozen = True
        super().freeze()
        return self

    def train(self, mode: bool = True) -> ShapesUnet:
        """Training mode for the pretraining alone."""
        super().train(mode and not self._is_frozen)
        return self

    @property
    def token_dim(self) -> int:
        """Channels of a token."""
        return self.config.token

    @property
    def levels(self) -> tuple[Level, ...]:
        """Four levels, from full resolution to an eighth."""
        widths = (self.config.full, *self.config.widths)
        return tuple(Level(width, (2**n,) * 3) for n, width in enumerate(widths))

    @property
    def multiple(self) -> tuple[int, int, int]:
        """Sides are halved three times."""
        return (DEEPEST,) * 3

    def encode(self, tokens: list[Tensor], position: nn.Module | None) -> tuple[list[Tensor], Tensor]:
        """The four levels and the mean of the deepest; ``position`` cannot be replaced."""
        if position is not None:
            self.own_position((1, 1, 1))  # says why not
        full = tokens[0].movedim(-1, 1).contiguous()
        half = self.stages[0](full)
        quarter = self.stages[1](half)
        deepest = self.stages[2](quarter)
        up_quarter = self.stages[3](_joined(deepest, quarter))
        up_half = self.stages[4](_joined(up_quarter, half))
        up_full = self.stages[5](_joined(up_half, full))
        return [up_full, up_half, up_quarter, deepest], deepest.flatten(2).mean(dim=2)


def _stage(inputs: int, outputs: int, *, stride: int = 1) -> nn.Sequential:
    """Two convolutions of 3 x 3 x 3, each with batch norm and ReLU; the first one may halve the resolution."""
    return nn.Sequential(_layer(inputs, outputs, stride=stride), _layer(outputs, outputs))


def _layer(inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv3d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm3d(outputs), nn.ReLU(inplace=True))


def _joined(deep: Tensor, shallow: Tensor) -> Tensor:
    """A level at twice its resolution (nearest), beside what the way down has there."""
    return torch.cat((nn.functional.interpolate(deep, scale_factor=2, mode="nearest"), shallow), dim=1)


def load_checkpoint(backbone: ShapesUnet, path: str | Path) -> None:
    """Loads what `python -m simulations pretrain shapes` wrote.

    Raises:
        BackboneError: the file is missing, no plain state dict, or its keys do not fit (all of them named).
    """
    load_into(backbone, read_state(path), what="this U-Net of shapes", source=path)
