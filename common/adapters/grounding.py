"""Grounding head: from a frozen model's cells and the words of prompts to a score of each word and a box at each cell.

The score is GLIP's (Li et al., CVPR 2022): <x, W (e / 2)> / exp(s) + <e, b> + b0, with e the unit embedding of a word
and x what the head says of a cell. A product alone, as the continual study's paper prints it, trains badly: scale and
biases stay.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LIMIT = 50_000.0  # of a score, either way, as GLIP has it
NO_WORD = -2 * LIMIT  # where a phrase has no word: no score can be this low
RARE = 0.01  # how probable a word is at a cell to begin with (Lin et al., ICCV 2017)


class GroundingHead(nn.Module):
    """Scores of words and distances to the sides of a box at each cell.

    Args:
        channels: of a cell.
        text: width of a word's embedding.
        width: of what the head makes of a cell.
        sides: of a box, 6, or 4 in a slice.
    """

    def __init__(self, channels: int, text: int, *, width: int, sides: int):
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.around = nn.Conv3d(channels, width, kernel_size=3, padding=1)
        self.query = nn.Linear(text, width, bias=False)  # W
        self.scale = nn.Parameter(torch.zeros(1))  # s
        self.word_bias = nn.Parameter(torch.zeros(text))  # b
        self.bias = nn.Parameter(torch.tensor([-math.log((1 - RARE) / RARE)]))  # b0
        self.box = nn.Conv3d(width, sides, kernel_size=1)

    def forward(self, cells: Tensor, words: Tensor, real: Tensor) -> Tensor:
        """(B, S x L + sides, d, h, w): the scores of each phrase's words, `NO_WORD` where there is none, then the
        logarithms of distances in cells from a cell's center to the sides of its box.

        Args:
            cells: (B, C, d, h, w), a level of the pyramid.
            words: (S, L, text) embeddings of the words of S phrases.
            real: bool (S, L), where there is a word.
        """
        seen = self.norm(cells.movedim(1, -1)).movedim(-1, 1)
        seen = F.gelu(self.around(seen))
        scores = self.score(seen.movedim(1, -1), words)  # (B, d, h, w, S, L)
        scores = torch.where(real, scores, torch.full_like(scores, NO_WORD))
        return torch.cat([scores.flatten(4).movedim(-1, 1), self.box(seen)], dim=1)

    def score(self, x: Tensor, words: Tensor) -> Tensor:
        """(..., S, L) of regions (..., width) and words (S, L, text)."""
        unit = F.normalize(words, dim=-1)
        product = torch.einsum("...c,slc->...sl", x, self.query(unit / 2))
        found = product / self.scale.exp() + (unit @ self.word_bias + self.bias)
        return found.clamp(-LIMIT, LIMIT)
