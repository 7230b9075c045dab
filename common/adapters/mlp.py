"""Mlp: one modality's embedding, adapted after the frozen model (UNICON's post-model adaptation)."""

from __future__ import annotations

from torch import nn


class Mlp(nn.Sequential):
    """(B, inputs) -> (B, width): linear, layer norm, GELU, dropout."""

    def __init__(self, inputs: int, width: int, *, dropout: float = 0.1):
        super().__init__(nn.Linear(inputs, width), nn.LayerNorm(width), nn.GELU(), nn.Dropout(dropout))
        self.width = width
