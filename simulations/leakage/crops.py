"""Small crops with lesions, and a frozen encoder whose head trains: what inversion and exposure are measured on.

Crops are synthetic and of 8 voxels a side: smooth tissue, noise, and in half of them a bright round lesion. The encoder
is frozen, of random convolutions; the adapter is a linear layer on its features, as a head or a low-rank factor is.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIDE, CHANNELS = 8, 8
WIDTH = CHANNELS * (SIDE // 2) ** 3
PUBLIC = 99_991  # the seed of crops that everybody has


def crops(count: int, *, seed: int) -> tuple[Tensor, Tensor]:
    """Volumes (n, 1, SIDE, SIDE, SIDE) and whether each holds a lesion, float (n, 1)."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 1, 3, 3, 3, generator=generator)
    volume = 0.5 * F.interpolate(coarse, size=(SIDE,) * 3, mode="trilinear", align_corners=True)
    volume = volume + 0.05 * torch.randn(volume.shape, generator=generator)
    label = (torch.rand(count, 1, generator=generator) < 0.5).float()
    return volume + label[:, :, None, None, None] * lesions(count, generator=generator), label


def lesions(count: int, *, generator: torch.Generator, brightness: float = 1.5) -> Tensor:
    """Round lesions (n, 1, SIDE, SIDE, SIDE), each somewhere, 1 to 2.5 voxels in radius."""
    places = torch.stack(torch.meshgrid(*[torch.arange(float(SIDE))] * 3, indexing="ij"))
    middle = 2 + (SIDE - 5) * torch.rand(count, 3, 1, 1, 1, generator=generator)
    radius = 1 + 1.5 * torch.rand(count, 1, 1, 1, generator=generator)
    far = ((places - middle) ** 2).sum(dim=1).sqrt()
    return brightness * torch.sigmoid(4 * (radius - far))[:, None]


class Encoder(nn.Module):
    """Frozen: (n, 1, D, H, W) -> features (n, W) of length 1, as they differ from those of usual, public crops."""

    weight0: Tensor
    weight1: Tensor
    usual: Tensor

    def __init__(self, *, seed: int = 0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        shapes = ((CHANNELS, 1, 3, 3, 3), (CHANNELS, CHANNELS, 3, 3, 3))
        for place, shape in enumerate(shapes):
            weight = torch.randn(shape, generator=generator) / (shape[1] * 27) ** 0.5
            self.register_buffer(f"weight{place}", weight)
        self.register_buffer("usual", torch.zeros(WIDTH))
        self.usual = self._features(crops(256, seed=PUBLIC)[0]).mean(dim=0)

    def forward(self, volume: Tensor) -> Tensor:
        away = self._features(volume) - self.usual
        return away / away.norm(dim=1, keepdim=True).clamp(min=1e-9)

    def _features(self, volume: Tensor) -> Tensor:
        hidden = torch.tanh(F.conv3d(volume, self.weight0, padding=1))
        return torch.tanh(F.conv3d(hidden, self.weight1, padding=1, stride=2)).flatten(1)
