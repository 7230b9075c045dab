"""Renderings of a label map: one image of it with random intensities, texture, blur, bias, noise, gamma, resolution.

Two renderings of one map share nothing but which voxels belong together; that is what a network can learn from them.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from common.exact.voxels import blurred as gaussian
from simulations.pretraining.shapes.labels import smooth_noise, uniform

SPREAD = 0.5  # of a label's texture, at most, in units of the spread of labels' means
BLUR = 1.6  # voxels, at most
BIAS = 0.4  # of the logarithm of the bias field, at most
NOISE = 0.25  # of the image's spread, at most
GAMMA = 0.5  # of the logarithm of gamma, at most
COARSER = 3.0  # times the voxel along one axis, at most, in half of the images
SCALE = (0.2, 1.2)  # of the final image's spread
OFFSET = 0.7  # of its mean, at most


def render(labels: Tensor, generator: Generator) -> Tensor:
    """float32 (side, side, side), an image of int64 labels (side, side, side)."""
    side, count = labels.shape[0], int(labels.max()) + 1
    means = torch.randn(count, generator=generator)
    spreads = uniform(0.0, SPREAD, count, generator)
    image = means[labels] + spreads[labels] * _texture(side, generator)
    image = blurred(image, float(uniform(0.0, BLUR, 1, generator)))
    image = _coarser(image, generator)
    image = image * torch.exp(_some(BIAS, generator) * smooth_noise(1, side, 3, generator)[0])
    image = image + _some(NOISE, generator) * image.std() * torch.randn(image.shape, generator=generator)
    image = _gamma(image, float(uniform(-GAMMA, GAMMA, 1, generator)))
    image = (image - image.mean()) / image.std().clamp_min(1e-6)
    return image * uniform(*SCALE, 1, generator) + uniform(-OFFSET, OFFSET, 1, generator)


def blurred(image: Tensor, sigma: float) -> Tensor:
    """The image (d, h, w) under a Gaussian of that many voxels, edges repeated; unchanged below a tenth of a voxel."""
    if sigma < 0.1:
        return image
    return gaussian(image[None, None], sigma, reach=max(1, math.ceil(3 * sigma)))[0, 0]


def _texture(side: int, generator: Generator) -> Tensor:
    """White, or smooth, with unit spread."""
    if torch.rand((), generator=generator) < 0.5:
        return torch.randn(side, side, side, generator=generator)
    cells = int(torch.randint(4, max(5, side // 2 + 1), (), generator=generator))
    noise = smooth_noise(1, side, cells, generator)[0]
    return noise / noise.std().clamp_min(1e-6)


def _coarser(image: Tensor, generator: Generator) -> Tensor:
    """Half of the images lose resolution along one axis, as thick slices do."""
    if torch.rand((), generator=generator) < 0.5:
        return image
    axis, side = int(torch.randint(0, 3, (), generator=generator)), image.shape[0]
    size = [side] * 3
    size[axis] = max(2, round(side / float(uniform(1.0, COARSER, 1, generator))))
    thick = F.interpolate(image[None, None], size=size, mode="area")
    return F.interpolate(thick, size=(side,) * 3, mode="trilinear", align_corners=False)[0, 0]


def _gamma(image: Tensor, log_gamma: float) -> Tensor:
    low, high = image.min(), image.max()
    share = ((image - low) / (high - low).clamp_min(1e-6)).clamp(0, 1)
    return low + (high - low) * share ** math.exp(log_gamma)


def _some(most: float, generator: Generator) -> Tensor:
    return most * torch.rand((), generator=generator)
