"""Unet: a small residual U-Net from random weights, which reads the images alone: what no frozen model is worth.

MONAI's `UNet` with instance norm, of about as many weights as the convolutional backbone of shapes (0.73 M beside
0.80 M). It is an adapter part, so that a federation trains it, and a baseline, by the same loop as everything else.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.nets import UNet
from torch import Tensor, nn

from common.adapters.decoder import expect_background

UNITS = 2  # convolutions of a residual unit


class Unet(nn.Module):
    """Volumes side by side (B, M, D, H, W) to logits (B, outputs, D, H, W); sides are multiples of `multiple`.

    Args:
        volumes: M, the images of a case.
        widths: channels from half the resolution down.
    """

    def __init__(self, volumes: int, outputs: int, *, widths: Sequence[int]):
        super().__init__()
        self.multiple = 2 ** (len(widths) - 1)
        self.body = UNet(
            spatial_dims=3, in_channels=volumes, out_channels=widths[0], channels=widths,
            strides=[2] * (len(widths) - 1), num_res_units=UNITS, norm="instance",
        )  # fmt: skip
        self.out = nn.Conv3d(widths[0], outputs, kernel_size=1)
        expect_background(self.out)

    def forward(self, volumes: Tensor) -> Tensor:
        return self.out(nn.functional.leaky_relu(self.body(volumes), 0.01))


def side_by_side(volumes: Sequence[Tensor], present: Sequence[Tensor]) -> Tensor:
    """Images (B, 1, D, H, W) as channels, zero in the cases (B,) that lack them."""
    shown = [x * there.view(-1, 1, 1, 1, 1).to(x) for x, there in zip(volumes, present, strict=True)]
    return torch.cat(shown, dim=1)
