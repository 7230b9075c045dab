"""Decoders of masked modelling: from what the encoder says of the seen patches to the hidden ones, and words' head.

They are named by source, so that a stage never goes on with the decoder of another one. The words' head never leaves a
center (`common.protocol.declaration`): a changed row of it would tell that a word occurs there.
"""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor, nn

from common.backbones.base import Backbone
from common.backbones.vision.dimension_free import DimensionFree, SharedBlock
from common.config.step import Step
from common.data.sources import PROJECTION, SLICES, Source, named_sources
from common.errors import AdapterError

HEADS = 4


class PatchDecoder(nn.Module):
    """Tokens of the seen patches to the values of all of them.

    Args:
        dim: the encoder's width.
        patches: how many an image has.
        values: voxels of one.
    """

    def __init__(self, dim: int, *, patches: int, values: int, width: int, layers: int):
        super().__init__()
        self.project = nn.Linear(dim, width)
        self.hidden = nn.Parameter(torch.randn(1, 1, width) * 0.02)  # stands for a patch that was not seen
        self.positions = nn.Parameter(torch.randn(1, 1 + patches, width) * 0.02)
        self.blocks = nn.ModuleList(SharedBlock(width, 4 * width, HEADS) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, values)

    def forward(self, tokens: Tensor, seen: Tensor) -> Tensor:
        """Predicted values (B, N, P).

        Args:
            tokens: (B, 1 + V, C), CLS first.
            seen: places of the others, int64 (B, V).
        """
        x = self.project(tokens)
        patches, width = self.positions.shape[1] - 1, x.shape[-1]
        whole = self.hidden.to(x.dtype).expand(len(x), patches, width)
        whole = whole.scatter(1, seen[..., None].expand(-1, -1, width), x[:, 1:])
        x = torch.cat([x[:, :1], whole], dim=1) + self.positions
        for block in self.blocks:
            x = block(x)
        return self.out(self.norm(x[:, 1:]))


class WordDecoder(nn.Sequential):
    """A report's tokens (B, L, C) to logits of words (B, L, V)."""

    def __init__(self, dim: int, vocabulary: int):
        super().__init__(nn.Linear(dim, dim), nn.GELU(), nn.LayerNorm(dim), nn.Linear(dim, vocabulary))


def build_decoders(backbone: Backbone, step: Step) -> nn.ModuleDict:
    """A decoder for each of the step's sources, by name.

    Raises:
        AdapterError: the backbone has no tokenizers of every dimension.
    """
    if not isinstance(backbone, DimensionFree):
        raise AdapterError(
            f"Step '{step.name}' restores what is masked, which takes a dimension_free backbone; this one is a "
            f"{type(backbone).__name__}: choose backbone=dimension_free_tiny or dimension_free."
        )
    return nn.ModuleDict({s.name: _decoder(backbone, step, s) for s in named_sources(step.task.sources)})


def _decoder(backbone: DimensionFree, step: Step, source: Source) -> nn.Module:
    config, task = backbone.config, step.task
    if source.is_report:
        return WordDecoder(config.hidden, config.vocabulary)
    depth, height, width = (side // config.patch for side in step.view.window)
    grid = {SLICES: (height, width), PROJECTION: (depth, width)}.get(source.form, (depth, height, width))
    return PatchDecoder(
        config.hidden, patches=prod(grid), values=config.patch ** len(grid), width=task.width, layers=task.layers
    )
