"""Intra-modal mixup: each case of a batch mixed with another of the same source, at the same center.

What is mixed of reports is patients' words: it stays in this process and is never logged.
"""

from __future__ import annotations

import torch
from torch import Tensor


def mixed_images(images: Tensor, others: Tensor, weight: Tensor) -> Tensor:
    """weight x + (1 - weight) y, by case; (B, 1, ...) each. A weight of 1 is the identity to the bit.

    Args:
        weight: (B,), in [0, 1].
    """
    weight = weight.view(-1, *[1] * (images.ndim - 1)).to(images)
    return torch.where(weight == 1, images, weight * images + (1 - weight) * others)


def mixed_words(ids: Tensor, others: Tensor, swap: Tensor) -> tuple[Tensor, Tensor]:
    """Words and the attention mask, (B, L) each: where ``swap``, both are the other report's, always together."""
    return torch.where(swap, others, ids), torch.where(swap, others != 0, ids != 0)


def mixed(values: Tensor, *, generator: torch.Generator) -> Tensor:
    """A batch mixed with a permutation of itself: images by a weight, words one by one by a threshold.

    Args:
        values: images, float (B, 1, ...), or words, int64 (B, L), whose 0 is padding: a word that is swapped brings
            its place in the attention mask along.
    """
    order = torch.randperm(len(values), generator=generator).to(values.device)
    weight = torch.rand(len(values), generator=generator)
    if values.is_floating_point():
        return mixed_images(values, values[order], weight)
    swap = torch.rand(values.shape, generator=generator) >= weight[:, None]
    ids, attention = mixed_words(values, values[order], swap.to(values.device))
    return ids * attention  # the encoder reads its mask from the words: 0 is padding
