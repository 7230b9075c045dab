"""Fusion: joins the embeddings of the modalities that are present (UNICON's multimodal fusion MLP)."""

from __future__ import annotations

from torch import Tensor, nn

from common.adapters.mlp import Mlp


class Fusion(nn.Module):
    """Embeddings side by side, zero where a case lacks the modality, to one embedding (B, width)."""

    def __init__(self, joined: int, width: int, *, dropout: float = 0.1):
        super().__init__()
        self.mlp = Mlp(joined, width, dropout=dropout)
        self.width = width

    def forward(self, joined: Tensor) -> Tensor:
        return self.mlp(joined)
