"""Fusion: joins the embeddings of the modalities that are present (UNICON's multimodal fusion)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from common.adapters.mlp import Mlp

HEADS = 4


class Fusion(nn.Module):
    """Embeddings, zero where a case lacks the modality, to one embedding (B, width).

    Args:
        widths: of the embeddings, in the order in which `forward` gets them.
        tokens: width of the image tokens to attend to; None: plain MLP over the embeddings side by side.
    """

    def __init__(self, widths: Sequence[int], width: int, *, dropout: float = 0.1, tokens: int | None = None):
        super().__init__()
        self.width = width
        self.attention = None if tokens is None else CrossAttention(widths, width, tokens=tokens)
        self.mlp = Mlp(sum(widths) if self.attention is None else len(widths) * width, width, dropout=dropout)

    def forward(
        self, embeddings: Sequence[Tensor], there: Sequence[Tensor], tokens: Tensor | None, imaged: Tensor
    ) -> Tensor:
        """One embedding per case.

        Args:
            embeddings: (B, widths[i]) each.
            there: bool (B,) each: which cases have it.
            tokens: (B, N, C) image tokens; only looked at in attention mode.
            imaged: bool (B,): the cases whose image tokens mean something.
        """
        if self.attention is not None:
            embeddings = self.attention(embeddings, there, tokens, imaged)
        return self.mlp(torch.cat(list(embeddings), dim=1))


class CrossAttention(nn.Module):
    """Each embedding asks the others and the image tokens, once; absent ones neither ask nor answer."""

    def __init__(self, widths: Sequence[int], width: int, *, tokens: int):
        super().__init__()
        self.align = nn.ModuleList(nn.Linear(inputs, width) for inputs in widths)
        self.align_tokens = nn.Linear(tokens, width)
        self.norm = nn.LayerNorm(width)
        heads = next(n for n in range(min(HEADS, width), 0, -1) if width % n == 0)
        # A zero to look at keeps a case that has nothing from dividing by zero.
        self.attend = nn.MultiheadAttention(width, heads, batch_first=True, add_zero_attn=True)

    def forward(
        self, embeddings: Sequence[Tensor], there: Sequence[Tensor], tokens: Tensor | None, imaged: Tensor
    ) -> list[Tensor]:
        """Embeddings of the common width, (B, width) each, zero where absent."""
        aligned = torch.stack([layer(x) for layer, x in zip(self.align, embeddings, strict=True)], dim=1)
        has = torch.stack(list(there), dim=1)  # (B, sources)
        keys, known = [aligned], [has]
        if tokens is not None:
            keys.append(self.align_tokens(tokens))
            known.append(imaged[:, None].expand(tokens.shape[:2]))
        asked = self.norm(torch.cat(keys, dim=1))
        answer, _ = self.attend(
            asked[:, : len(embeddings)], asked, asked, key_padding_mask=~torch.cat(known, dim=1), need_weights=False
        )
        return list(((aligned + answer) * has.unsqueeze(-1)).unbind(dim=1))
