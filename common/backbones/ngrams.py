"""A text side without weights to ship: words and word pairs, hashed, and projected at random.

The report's vocabulary is small and closed, so that a random projection of which words occur keeps nearly all that it
says (Johnson and Lindenstrauss); there is nothing to pre-train and nothing that could have seen a patient.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from common.backbones.base import Backbone, Features, Join, Level, Text
from common.data.batch import EHR

BUCKETS = 4096  # of which 0 is padding
WIDTH = 128
SEED = 20_240_817  # of the projection, so that every center has the same
_WORD = re.compile(r"[a-z]+|\d+")


class NgramTokenizer:
    """Texts to the buckets of their words and of neighbouring pairs of words."""

    def __call__(self, texts: Text) -> Tensor:
        """int64 (B, L), 0 = padding."""
        rows = [_buckets(text) for text in texts]
        length = max((len(row) for row in rows), default=0)
        return torch.tensor([row + [0] * (length - len(row)) for row in rows], dtype=torch.int64).reshape(
            len(rows), length
        )


class HashedText(Backbone):
    """Another backbone's image side beside hashed n-grams as the text side.

    Args:
        image: keeps its image sites for adapters; its own text side is not used for reports any more.
    """

    def __init__(self, image: Backbone):
        super().__init__()
        self.image = image
        self.sites = {f"{n}": rf"image\.(?:{p})" for n, p in image.sites.items() if n.startswith("image_")}
        self.blocks = {name: count for name, count in image.blocks.items() if name in self.sites}
        self.patch, self.native, self.takes_sequence = image.patch, image.native, image.takes_sequence
        self.image_dim, self.text_dim = image.image_dim, WIDTH
        self.tokenizer = NgramTokenizer()
        drawn = torch.randn(BUCKETS, WIDTH, generator=torch.Generator().manual_seed(SEED))
        drawn[0] = 0.0
        self.projection = nn.Parameter(drawn, requires_grad=False)

    @property
    def token_dim(self) -> int:
        """The image side's."""
        return self.image.token_dim

    @property
    def levels(self) -> tuple[Level, ...]:
        """The image side's."""
        return self.image.levels

    @property
    def multiple(self) -> tuple[int, int, int]:
        """The image side's."""
        return self.image.multiple

    def own_position(self, grid: tuple[int, int, int]) -> nn.Module:
        """The image side's."""
        return self.image.own_position(grid)

    def ct_stem(self) -> nn.Module:
        """The CT patch embedding, for stems that start as a copy of it."""
        return self.image.ct_stem()

    def forward(
        self,
        inputs: Mapping[str, Tensor],
        present: Mapping[str, Tensor],
        stems: Mapping[str, nn.Module] | None = None,
        *,
        join: Join | str | None = None,
        position: nn.Module | None = None,
    ) -> Features:
        """Features of a batch; see `common.backbones.base.Backbone.forward`."""
        volumes = {name: value for name, value in inputs.items() if name != EHR}
        features = self.image(volumes, present, stems, join=join, position=position) if volumes else Features([], {})
        if EHR in inputs and EHR in present:
            text = self.read(inputs[EHR])
            features.pooled["text"] = torch.where(present[EHR][:, None], text, torch.zeros_like(text))
        return features

    def read(self, ids: Tensor) -> Tensor:
        """Sum of the projections of what occurs, over the root of its number: (B, WIDTH), of variance one."""
        count = (ids != 0).sum(dim=1, keepdim=True).clamp(min=1)
        return self.projection[ids].sum(dim=1) / count.sqrt()

    def words_of(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """The projection of each word and pair of words."""
        return self.projection[ids], ids != 0

    def zero_shot(self, inputs: Mapping[str, Tensor], classes: Sequence[str]) -> Tensor:
        """The image backbone's own answer: prompts were made for its own text side."""
        return self.image.zero_shot(inputs, classes)  # type: ignore[operator]


def _buckets(text: str) -> list[int]:
    """Every word and every pair of neighbours of a sentence, once each, in the order in which they occur."""
    found: dict[int, None] = {}
    for sentence in text.lower().split("."):
        words = _WORD.findall(sentence)
        for gram in [*words, *(f"{a} {b}" for a, b in pairwise(words))]:
            found[1 + zlib.crc32(gram.encode()) % (BUCKETS - 1)] = None
    return list(found)
