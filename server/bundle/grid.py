"""What MONAI has no transform for: the grid of a bundle's images, the filter before it, and how an answer is read.

MONAI's Spacing places its first voxel elsewhere than `client.data.images` and does not filter where it coarsens. A
bundle holds this file as it stands, under ``scripts/``, so it imports nothing but numpy, torch and MONAI.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import combinations, product
from pathlib import Path

import numpy as np
import torch
from monai.data import MetaTensor
from torch.nn.functional import conv1d, pad


def grid_of(image: MetaTensor, spacing: list[float], size: list[int] | None, window: list[int]) -> MetaTensor:
    """Empty voxels (1, x, y, z) along the world's axes, centered on an image.

    Args:
        spacing, size, window: as (x, y, z), in mm and in voxels. Without a size the whole image, at least a window.
    """
    shape = np.array(image.shape[1:])
    corners = np.array(list(product(*[(-0.5, n - 0.5) for n in shape])))
    affine = np.asarray(image.affine, np.float64)
    world = corners @ affine[:3, :3].T + affine[:3, 3]
    low, high, step = world.min(axis=0), world.max(axis=0), np.array(spacing, np.float64)
    counts = np.maximum(1, np.ceil((high - low) / step - 1e-3)).astype(int)
    first = (low + high) / 2 - (counts - 1) / 2 * step
    box = np.array(size) if size is not None else np.maximum(counts, window)
    start = (counts - box) // 2 if size is not None else -((box - counts) // 2)
    matrix = np.diag([*step, 1.0])
    matrix[:3, 3] = first + start * step
    return MetaTensor(torch.zeros(1, *(int(n) for n in box)), affine=torch.from_numpy(matrix))


def smoothed(image: MetaTensor, spacing: list[float]) -> MetaTensor:
    """A Gaussian low-pass of (step - 1) / 2 voxels where a step of the grid spans ``step`` > 1 of the image's own."""
    own = np.linalg.inv(np.asarray(image.affine, np.float64)[:3, :3]) @ np.diag(spacing)
    sigmas = np.maximum(0.0, (np.linalg.norm(np.round(own, 6), axis=1) - 1) / 2)
    found = image.as_tensor().float()
    for axis, sigma in enumerate(sigmas, start=1):
        found = _along(found, axis, float(sigma)) if sigma > 0 else found
    return MetaTensor(found, affine=image.affine, meta=image.meta, applied_operations=image.applied_operations)


def answered(
    image: torch.Tensor, inferer: Callable[..., torch.Tensor], network: Callable[..., torch.Tensor], mirrors: list[int]
) -> torch.Tensor:
    """The network's answer by windows, averaged over all combinations of mirrored axes of (B, C, D, H, W)."""
    views = [axes for count in range(len(mirrors) + 1) for axes in combinations(mirrors, count)]
    with torch.no_grad():
        found = [inferer(image.flip(axes), network).flip(axes) if axes else inferer(image, network) for axes in views]
    return found[0] if len(found) == 1 else sum(found[1:], found[0]) / len(found)


def background_beyond(probabilities: torch.Tensor) -> torch.Tensor:
    """Probabilities (1 + S, x, y, z) on a file's own grid: where no window reached there is background, channel 0."""
    probabilities[0] += 1 - probabilities.sum(dim=0)
    return probabilities


def written(image: MetaTensor, network: Callable[[torch.Tensor], torch.Tensor], folder: str) -> MetaTensor:
    """Write the network's output of each image of a batch beside its name, as JSON; the batch as it came."""
    with torch.no_grad():
        outputs = network(image.as_tensor())
    for name, output in zip(image.meta["filename_or_obj"], outputs, strict=True):
        Path(folder).mkdir(parents=True, exist_ok=True)
        path = Path(folder) / f"{Path(name).name.partition('.')[0]}.json"
        path.write_text(json.dumps({"output": output.tolist()}))
    return image


def _along(values: torch.Tensor, axis: int, sigma: float) -> torch.Tensor:
    radius = int(3.0 * sigma + 0.5)
    places = torch.arange(-radius, radius + 1, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (places / sigma) ** 2)
    rows = values.movedim(axis, -1)
    flat = pad(rows.reshape(-1, 1, rows.shape[-1]), (radius, radius), mode="replicate")
    weights = (kernel / kernel.sum()).to(values.dtype)[None, None]
    return conv1d(flat, weights).reshape(rows.shape).movedim(-1, axis)
