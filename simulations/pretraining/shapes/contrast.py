"""Per-voxel contrast between two renderings: voxels of one label are each other's positives, in both images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

TEMPERATURE = 0.15
VOXELS = 160  # of one volume at one level, drawn evenly over its labels
WIDTH = 32  # of the projection


class Projection(nn.Module):
    """Two pointwise layers to the unit sphere, one such for each level; thrown away after the pretraining."""

    def __init__(self, channels: Sequence[int]):
        super().__init__()
        self.levels = nn.ModuleList(
            nn.Sequential(nn.Linear(width, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH)) for width in channels
        )

    def forward(self, level: int, features: Tensor) -> Tensor:
        """(n, channels) to (n, WIDTH) of length 1."""
        return F.normalize(self.levels[level](features), dim=-1)


def contrast(
    first: Sequence[Tensor], second: Sequence[Tensor], labels: Tensor, project: Projection, generator: Generator
) -> Tensor:
    """Mean loss over volumes and levels.

    Args:
        first, second: levels (B, C, d, h, w) of either rendering.
        labels: int64 (B, D, H, W), the map that both were rendered from.
    """
    losses = []
    for level, (one, other) in enumerate(zip(first, second, strict=True)):
        there = _at(labels, one.shape[2:])
        for mine, theirs, where in zip(one, other, there, strict=True):
            chosen = even_sample(where.flatten(), VOXELS, generator)
            vectors = torch.cat([mine.flatten(1).T[chosen], theirs.flatten(1).T[chosen]])
            label = where.flatten()[chosen]
            losses.append(same_label(project(level, vectors), torch.cat([label, label])))
    return torch.stack(losses).mean()


def same_label(vectors: Tensor, labels: Tensor) -> Tensor:
    """Supervised contrast (arXiv 2004.11362, mean outside the logarithm) of unit vectors (n, W) with labels (n,)."""
    logits = vectors @ vectors.T / TEMPERATURE
    itself = torch.eye(len(labels), dtype=torch.bool)
    logits = logits.masked_fill(itself, float("-inf"))
    positive = (labels[:, None] == labels[None, :]) & ~itself
    log_share = logits - logits.logsumexp(dim=1, keepdim=True)
    found = log_share.masked_fill(~positive, 0.0).sum(dim=1) / positive.sum(dim=1).clamp_min(1)
    return -found[positive.any(dim=1)].mean()


def even_sample(labels: Tensor, count: int, generator: Generator) -> Tensor:
    """Places (count,) of labels (n,), each label as likely as any other; with repetition."""
    _, inverse, sizes = labels.unique(return_inverse=True, return_counts=True)
    return torch.multinomial(1.0 / sizes[inverse].float(), count, replacement=True, generator=generator)


def _at(labels: Tensor, size: torch.Size) -> Tensor:
    """The map at a level's resolution, (B, d, h, w): each cell's middle voxel."""
    return F.interpolate(labels[:, None].float(), size=tuple(size), mode="nearest-exact")[:, 0].long()
