"""How a cosine codebook is trained: a k-means start, then moving averages. The frozen quantizer only looks rows up."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from common.backbones.ctvit import Codebook


class MovingCodebook:
    """Trains a codebook by moving averages of the unit tokens that chose each row (cosine, as CTViT's own).

    Args:
        codebook: the buffers to train, in place.
        tokens: (N, C), for the k-means start.
        decay: of the moving averages, per step.
    """

    def __init__(self, codebook: Codebook, tokens: Tensor, *, decay: float, rng: np.random.Generator):
        codebook.embed[0].copy_(cosine_kmeans(tokens, codebook.embed.shape[1], rng=rng))
        codebook.cluster_size.fill_(1.0)
        self._codebook = codebook
        self._sums = codebook.embed[0].clone()
        self._decay = decay
        self._rng = rng

    @torch.no_grad()
    def update(self, tokens: Tensor, indices: Tensor) -> None:
        """One step with tokens (..., C) and the rows (...) they chose.

        A row that nearly no token chooses any more restarts at a random token.
        """
        unit, chosen = F.normalize(tokens.flatten(0, -2), dim=-1), indices.flatten()
        counts = torch.bincount(chosen, minlength=len(self._sums)).float()
        sums = torch.zeros_like(self._sums).index_add_(0, chosen, unit)
        sizes = self._codebook.cluster_size[0]
        sizes.lerp_(counts, 1 - self._decay)
        self._sums.lerp_(sums, 1 - self._decay)
        dead = (sizes < 0.05).nonzero().flatten()
        if len(dead):
            self._sums[dead] = unit[torch.from_numpy(self._rng.integers(0, len(unit), size=len(dead)))]
            sizes[dead] = 1.0
        self._codebook.embed[0].copy_(F.normalize(self._sums, dim=-1))


def cosine_kmeans(points: Tensor, clusters: int, *, rng: np.random.Generator, iterations: int = 10) -> Tensor:
    """Unit centers (clusters, C) of points (N, C) by angle; an empty cluster keeps its center."""
    points = F.normalize(points, dim=-1)
    centers = points[torch.from_numpy(rng.choice(len(points), size=clusters, replace=len(points) < clusters))].clone()
    for _ in range(iterations):
        nearest = (points @ centers.T).argmax(dim=-1)
        sums = torch.zeros_like(centers).index_add_(0, nearest, points)
        filled = torch.bincount(nearest, minlength=clusters) > 0
        centers[filled] = F.normalize(sums[filled], dim=-1)
    return centers
