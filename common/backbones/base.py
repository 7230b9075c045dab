"""What a frozen backbone is: named inputs in, features out, and the places where adapters may attach."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

Text = list[str]


@dataclass
class Features:
    """What a backbone gives for a batch of B cases.

    Args:
        pyramid: hidden states from shallow to deep, each (B, C, d, h, w) on the token grid (pre-quantisation).
        pooled: embeddings by source: ``image`` (B, C_image) and, where a report was given, ``text`` (B, C_text).
            Rows of cases that lack the source are zero.
    """

    pyramid: list[Tensor]
    pooled: dict[str, Tensor]


@dataclass(frozen=True)
class NativeView:
    """What the backbone was trained on; axes (depth, height, width)."""

    spacing_mm: tuple[float, float, float]
    size: tuple[int, int, int]
    ct_hu: tuple[float, float]


class Tokenizer(Protocol):
    """Turns report texts into int64 (B, L), 0 = padding."""

    def __call__(self, texts: Text) -> Tensor: ...


class Backbone(nn.Module):
    """Base of every backbone. Subclasses set the attributes below and implement `forward`.

    Attributes:
        sites: name -> regular expression that fully matches the names of the Linear/Conv modules adapters may target.
        blocks: site name -> number of blocks, for adapters that only touch the last k (block index is the first
            integer group ``(\\d+)`` of the regular expression).
        patch: (depth, height, width) voxels of one token.
        image_dim, text_dim: widths of ``Features.pooled``; image_dim is also the pyramid's channel count.
        native: the view of the pretraining data.
        tokenizer: the text side's own tokenizer.
    """

    sites: dict[str, str]
    blocks: dict[str, int]
    patch: tuple[int, int, int]
    image_dim: int
    text_dim: int
    native: NativeView
    tokenizer: Tokenizer

    def forward(
        self,
        inputs: Mapping[str, Tensor],
        present: Mapping[str, Tensor],
        stems: Mapping[str, nn.Module] | None = None,
    ) -> Features:
        """Features of a batch.

        Args:
            inputs, present: as in `common.batch.Batch`.
            stems: patch embeddings of modalities other than CT, by modality; each maps (B, 1, D, H, W) to tokens
                (B, d, h, w, C) that are added to the CT tokens of the cases where the modality is present.
        """
        raise NotImplementedError

    def freeze(self) -> Backbone:
        """Evaluation mode, no gradients: what 'frozen' means everywhere in fedgraft."""
        self.eval()
        for parameter in self.parameters():
            parameter.requires_grad_(False)
        return self


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes in name order: the identity of a set of tensors."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
