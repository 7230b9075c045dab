"""What the backbones share that are image encoders alone: volumes in the weights' own axes and range, reports as words.

Their weights come from MONAI, where a volume is (x, y, z) in RAS order and CT is scaled to [0, 1]. fedgraft's volumes
are (z, y, x) and CT is scaled to [-1, 1], so the embedding turns both: otherwise loaded kernels would be transposed.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.backbones.base import Backbone, Features, Join
from common.backbones.text import BagOfWords, HashTokenizer
from common.backbones.tokens import Sequence, batched, callable_join, embed, keep, presence, sequences, whole_patches
from common.data.batch import EHR

WORDS = 256


class VoxelEmbed(nn.Module):
    """Volume (B, 1, D, H, W) to tokens (B, d, h, w, C): z y x in [-1, 1], for a kernel trained on x y z in [0, 1].

    Args:
        multiple: sides of a volume must be whole multiples of this (depth, height, width).
    """

    def __init__(self, dim: int, patch: tuple[int, int, int], multiple: tuple[int, int, int]):
        super().__init__()
        self.multiple = multiple
        kernel = patch[::-1]
        self.proj = nn.Conv3d(1, dim, kernel, kernel)

    def forward(self, volume: Tensor) -> Tensor:
        whole_patches(volume.shape[-3:], self.multiple)
        return self.proj(transposed((volume + 1) / 2)).permute(0, 4, 3, 2, 1)


def transposed(x: Tensor) -> Tensor:
    """(B, C, z, y, x) to (B, C, x, y, z), or back."""
    return x.permute(0, 1, 4, 3, 2)


class ImageBackbone(Backbone):
    """An encoder of volumes; subclasses set ``patch_embed`` and say how tokens are encoded.

    Reports become the set of their words (`BagOfWords`), so that steps may look at EHR beside a volume.
    """

    patch_embed: nn.Module
    text_dim = WORDS

    def __init__(self) -> None:
        super().__init__()
        self.words: nn.Module = BagOfWords(WORDS)
        self.tokenizer = HashTokenizer(WORDS, punctuation=False)

    def words_of(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Each word's bucket, as a unit vector."""
        return F.one_hot(ids, WORDS).float(), ids != 0

    def encode(self, tokens: list[Tensor], position: nn.Module | None) -> tuple[list[Tensor], Tensor]:
        """Pyramid and pooled embedding (b, image_dim) of token sets (b, d, h, w, C) that stand in one sequence."""
        raise NotImplementedError

    def ct_stem(self) -> nn.Module:
        """The CT patch embedding, for stems that start as a copy of it."""
        return self.patch_embed

    def forward(
        self,
        inputs: Mapping[str, Tensor],
        present: Mapping[str, Tensor],
        stems: Mapping[str, nn.Module] | None = None,
        *,
        join: Join | str | None = None,
        position: nn.Module | None = None,
    ) -> Features:
        """Features of a batch, as `Backbone.forward` says; ``pooled["text"]`` marks the words of a report."""
        some = next(iter(inputs.values()))
        pyramid: list[Tensor] = []
        pooled = {"image": torch.zeros(len(some), self.image_dim, device=some.device)}
        tokens = embed(self.patch_embed, inputs, present, stems or {})
        if tokens is not None:
            read = sequences(tokens, join if self.takes_sequence else callable_join(join))
            pyramid, image = self._encode_all(read, position)
            pyramid = [keep(x, tokens.seen) for x in pyramid]
            pooled["image"] = keep(image, tokens.seen)
        if EHR in inputs:
            pooled["text"] = keep(self.read(inputs[EHR]), presence(present, EHR, inputs[EHR]))
        return Features(pyramid, pooled)

    def read(self, ids: Tensor) -> Tensor:
        """What is said of reports (B, text_dim)."""
        return self.words(ids)

    def _encode_all(self, read: list[Sequence], position: nn.Module | None) -> tuple[list[Tensor], Tensor]:
        found = [self.encode(part.tokens, position) for part in read]
        pyramid = [batched(list(level), read) for level in zip(*(states for states, _ in found), strict=True)]
        return pyramid, batched([image for _, image in found], read)
