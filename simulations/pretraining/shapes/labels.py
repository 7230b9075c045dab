"""Random label maps: which voxel belongs to which of a few regions, and compact objects on top of them.

No map resembles a patient on purpose: regions are the largest of several smooth random fields, objects are rotated,
roughened ellipsoids. Everything is drawn from one generator.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

REGIONS = (3, 8)  # smooth fields of one map
COARSE = (2, 7)  # cells a side of a field's noise: from one bend to many
OBJECTS = 3  # at most, of one map
RADII = (0.04, 0.30)  # of an object's half axes, as shares of a side
ROUGHNESS = 0.35  # of an object's surface


def label_map(side: int, generator: Generator) -> Tensor:
    """int64 (side, side, side): regions from 0, then objects."""
    regions = _integer(*REGIONS, generator)
    fields = smooth_noise(regions, side, _integer(*COARSE, generator), generator)
    labels = fields.argmax(dim=0)
    for number in range(_integer(0, OBJECTS, generator)):
        labels[_object(side, generator)] = regions + number
    return labels


def smooth_noise(count: int, side: int, cells: int, generator: Generator) -> Tensor:
    """(count, side, side, side): normal noise on a grid of so many cells, resized."""
    noise = torch.randn(1, count, cells, cells, cells, generator=generator)
    return F.interpolate(noise, size=(side,) * 3, mode="trilinear", align_corners=True)[0]


def _object(side: int, generator: Generator) -> Tensor:
    """bool (side, side, side): an ellipsoid anywhere, turned any way, its surface moved in and out."""
    center = uniform(0.1, 0.9, 3, generator)
    low, high = (math.log(r) for r in RADII)
    radii = torch.exp(uniform(low, high, 3, generator))
    turn = torch.linalg.qr(torch.randn(3, 3, generator=generator)).Q
    axis = (torch.arange(side) + 0.5) / side
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1) - center
    distance = ((grid @ turn) / radii).square().sum(dim=-1).sqrt()
    rough = smooth_noise(1, side, _integer(3, 9, generator), generator)[0]
    return distance < 1 + ROUGHNESS * rough * float(torch.rand((), generator=generator))


def uniform(low: float, high: float, count: int, generator: Generator) -> Tensor:
    """(count,) from low to high."""
    return low + (high - low) * torch.rand(count, generator=generator)


def _integer(low: int, high: int, generator: Generator) -> int:
    """From low to high, both included."""
    return int(torch.randint(low, high + 1, (), generator=generator))
