"""Deep supervision: a decoder's coarser levels answer too in training, each against the mask at its resolution.

As nnU-Net weighs them (Isensee et al., Nature Methods 2021): each level half as much as the next finer one, all
together one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch.nn.functional as F
from torch import Tensor

from common.data.batch import Batch
from common.tasks import Task
from common.tasks.segmentation import MASK, label_map


def supervised(task: Task, deeper: Sequence[Tensor], batch: Batch, loss: Tensor) -> Tensor:
    """The loss of an answer and those of coarser levels; the loss itself where none answered.

    Args:
        deeper: logits (B, 1 + S, d, h, w), the finest first.
    """
    if not deeper:
        return loss
    weights = [0.5**level for level in range(len(deeper) + 1)]
    losses = [loss, *(task.loss(output.float(), _coarser(batch, output)) for output in deeper)]
    return sum((w * one for w, one in zip(weights, losses, strict=True)), loss.new_zeros(())) / sum(weights)


def _coarser(batch: Batch, output: Tensor) -> Batch:
    """The batch with its mask at an answer's resolution, by nearest neighbor."""
    mask = F.interpolate(label_map(batch)[:, None].float(), size=output.shape[2:], mode="nearest-exact")
    return replace(batch, target=batch.target | {MASK: mask.to(batch.target[MASK].dtype)})
