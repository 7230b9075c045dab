"""Regions: the cells of one case's output as scores of words and boxes in voxels, and which cell learns which box."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from common.adapters.grounding import LIMIT

NEAR = 1.5  # cells from a box's middle: only these learn it (center sampling, Tian et al., ICCV 2019)
LARGEST = 6.0  # of a logarithm of cells


class Regions:
    """Cells of a case.

    Args:
        output: (S x L + sides, d, h, w).
        size: the volume's sides in voxels.
        at: the axial slice that is looked at; then only its layer of cells counts, and boxes are one voxel thick. -1:
            all of them.

    Attributes:
        scores: (N, S, L) of words.
        boxes: (N, 6) in voxels, within the volume.
        centers: (N, 3) in voxels.
    """

    def __init__(self, output: Tensor, size: Sequence[int], *, structures: int, sides: int, at: int = -1):
        grid = output.shape[1:]
        self.stride = output.new_tensor([side / cells for side, cells in zip(size, grid, strict=True)])
        if at >= 0:
            layer = min(int(at / float(self.stride[0])), grid[0] - 1)
            output = output[:, layer : layer + 1]
        cells = output.flatten(1).T  # (N, S x L + sides)
        self.scores = cells[:, :-sides].unflatten(1, (structures, -1))
        self.centers = _centers(output.shape[1:], self.stride)
        if at >= 0:
            self.centers[:, 0] = at + 0.5
        self.boxes = _boxes(self.centers, cells[:, -sides:], self.stride, output.new_tensor(size), at=at)

    def probability(self, place: int) -> Tensor:
        """(N,) of a structure: the mean over its phrase's words."""
        own = self.scores[:, place]
        real = own > -LIMIT
        return torch.where(real, own.sigmoid(), torch.zeros_like(own)).sum(dim=1) / real.sum(dim=1).clamp(min=1)

    def assigned(self, truth: Tensor) -> Tensor:
        """(N,) which of the boxes (M, 6) each cell learns: the smallest whose middle is near, -1 of none. A box that no
        cell's center lies in is learned by the cell nearest to its middle."""
        if not len(truth):
            return torch.full((len(self.centers),), -1, dtype=torch.long, device=truth.device)
        middle = (truth[:, :3] + truth[:, 3:]) / 2
        apart = ((self.centers[:, None] - middle[None]) / self.stride).abs()  # (N, M, 3)
        inside = (self.centers[:, None] >= truth[None, :, :3]) & (self.centers[:, None] < truth[None, :, 3:])
        learns = (inside & (apart < NEAR)).all(dim=2)
        lonely = ~learns.any(dim=0)
        nearest = apart.square().sum(dim=2).argmin(dim=0)
        learns[nearest[lonely], lonely.nonzero()[:, 0]] = True
        volume = (truth[:, 3:] - truth[:, :3]).prod(dim=1)
        cost = torch.where(learns, volume[None], torch.full_like(volume[None], torch.inf))
        return torch.where(learns.any(dim=1), cost.argmin(dim=1), -1)


def _centers(grid: Sequence[int], stride: Tensor) -> Tensor:
    axes = [(torch.arange(n, device=stride.device) + 0.5) * s for n, s in zip(grid, stride, strict=True)]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 3)


def _boxes(centers: Tensor, distances: Tensor, stride: Tensor, size: Tensor, *, at: int) -> Tensor:
    """(N, 6) from the logarithms of distances (N, 2 x dims), in cells, to the lower sides and to the upper ones."""
    reach = distances.clamp(max=LARGEST).exp()
    low, high = reach.chunk(2, dim=1)
    dims = low.shape[1]
    lower, upper = (centers[:, -dims:] - low * stride[-dims:]), (centers[:, -dims:] + high * stride[-dims:])
    lower, upper = lower.clamp(min=0), torch.minimum(upper, size[-dims:])
    if dims == 3:
        return torch.cat([lower, upper], dim=1)
    flat = centers.new_full((len(centers), 1), float(at))
    return torch.cat([flat, lower, flat + 1, upper], dim=1)
