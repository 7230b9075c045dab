"""TinyBackbone: an encoder of a few thousand frozen random weights, for tests and for the smoke curriculum.

It has every part that adapters and tasks ask of a real backbone (sites in an image and a text stack, four hidden
states, stems, zero-shot scores) and learns nothing: what it says about a volume is a random projection of it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.backbones.base import Backbone, Features, Join, NativeView
from common.backbones.text import HashTokenizer
from common.backbones.tokens import batched, embed, keep, presence, sequences, whole_patches
from common.config.backbones import MULTIPLES
from common.data.batch import CT, EHR
from common.seeding import seed_torch

BUCKETS = 64
DEPTH = 4
HEADS = 2
POOL = 2


class TinyBlock(nn.Module):
    """Pre-norm attention over all tokens, then one linear layer."""

    def __init__(self, dim: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:  # (B, N, C)
        query, key, value = (
            part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in self.qkv(self.norm1(x)).chunk(3, dim=-1)
        )
        attended = F.scaled_dot_product_attention(query, key, value)
        x = x + self.proj(attended.transpose(1, 2).flatten(2))
        return x + F.gelu(self.mlp(self.norm2(x)))


class TinyTextBlock(nn.Module):
    """A gated linear layer on every word."""

    def __init__(self, dim: int):
        super().__init__()
        self.query = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:  # (B, L, C)
        return x + torch.sigmoid(self.query(x)) * self.value(x)


class TinyPatchEmbed(nn.Module):
    """Volume (B, 1, D, H, W) to tokens (B, d, h, w, C)."""

    def __init__(self, dim: int, patch: tuple[int, int, int]):
        super().__init__()
        depth, height, width = (side // POOL for side in patch)
        stride = (depth, height, width)
        self.patch = patch
        self.pool = nn.AvgPool3d(POOL)
        self.proj = nn.Conv3d(1, dim, stride, stride)

    def forward(self, volume: Tensor) -> Tensor:
        whole_patches(volume.shape[-3:], self.patch)
        return self.proj(self.pool(volume)).movedim(1, -1)


class TinyBackbone(Backbone):
    """Frozen at random weights that depend on ``seed`` alone."""

    patch = MULTIPLES["tiny"]["any"]
    image_dim = 24
    text_dim = 16
    native = NativeView(spacing_mm=(3.0, 3.0, 3.0), size=(48, 48, 48), ct_hu=(-1024.0, 1024.0))
    sites = {  # noqa: RUF012
        "image_attention": r"image_blocks\.(\d+)\.(qkv|proj)",
        "image_mlp": r"image_blocks\.(\d+)\.mlp",
        "text_attention": r"text_blocks\.(\d+)\.(query|value)",
    }
    takes_sequence = True
    blocks = {"image_attention": DEPTH, "image_mlp": DEPTH, "text_attention": 2}  # noqa: RUF012

    def __init__(self, seed: int = 0):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            seed_torch(seed)
            self._build()
        self.tokenizer = HashTokenizer(BUCKETS)
        self.freeze()

    def _build(self) -> None:
        image, text = self.image_dim, self.text_dim
        self.image_embed = TinyPatchEmbed(image, self.patch)
        self.image_position = nn.Conv3d(image, image, 3, padding=1, groups=image)  # any grid fits
        self.image_blocks = nn.ModuleList(TinyBlock(image) for _ in range(DEPTH))
        self.image_norm = nn.LayerNorm(image)
        self.text_embed = nn.Embedding(BUCKETS, text, padding_idx=0)
        self.text_blocks = nn.ModuleList(TinyTextBlock(text) for _ in range(2))
        self.to_latent = nn.Linear(image, text)

    def ct_stem(self) -> nn.Module:
        """The CT patch embedding, for stems that start as a copy of it."""
        return self.image_embed

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
        some = next(iter(inputs.values()))
        pyramid: list[Tensor] = []
        pooled = {"image": torch.zeros(len(some), self.image_dim, device=some.device)}
        tokens = embed(self.image_embed, inputs, present, stems or {})
        if tokens is not None:
            read = sequences(tokens, join)
            states = [self._hidden_states(part.tokens, position or self.image_position) for part in read]
            levels = [batched([x for x, _ in level], read) for level in zip(*states, strict=True)]
            pyramid = [keep(x, tokens.seen) for x in levels]
            last = [self.image_norm(part[-1][1].mean(dim=1)) for part in states]
            pooled["image"] = keep(batched(last, read), tokens.seen)
        if EHR in inputs:
            pooled["text"] = keep(self._text(inputs[EHR]), presence(present, EHR, inputs[EHR]))
        return Features(pyramid, pooled)

    def own_position(self, grid: tuple[int, int, int]) -> nn.Module:
        """A trainable copy of the position convolution, which fits any grid."""
        return copy.deepcopy(self.image_position).requires_grad_(True)

    def zero_shot(self, inputs: Mapping[str, Tensor], classes: Sequence[str]) -> Tensor:
        """Logits (B, C): how much closer each CT is to "X is present." than to "X is not present."."""
        volume = inputs[CT]
        present = torch.ones(len(volume), dtype=torch.bool, device=volume.device)
        image = F.normalize(self.to_latent(self.forward({CT: volume}, {CT: present}).pooled["image"]), dim=-1)
        yes, no = (
            F.normalize(self._text(self.tokenizer([prompt.format(c) for c in classes]).to(volume.device)), dim=-1)
            for prompt in ("{} is present.", "{} is not present.")
        )
        return 10.0 * image @ (yes - no).T

    def _hidden_states(self, tokens: list[Tensor], position: nn.Module) -> list[tuple[Tensor, Tensor]]:
        """Per block, the first tokens' grid (B, C, d, h, w) and the whole sequence (B, L, C)."""
        grids = [x.movedim(-1, 1) for x in tokens]
        x = torch.cat([(grid + position(grid)).flatten(2).transpose(1, 2) for grid in grids], dim=1)
        states, size = [], grids[0].shape[2:]
        for block in self.image_blocks:
            x = block(x)
            states.append((x[:, : size.numel()].transpose(1, 2).unflatten(2, size), x))
        return states

    def words_of(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """What the text blocks say of each word."""
        x = self.text_embed(ids)
        for block in self.text_blocks:
            x = block(x)
        return x, ids != 0

    def _text(self, words: Tensor) -> Tensor:
        x, is_word = self.words_of(words)
        real = is_word.unsqueeze(-1)
        return (x * real).sum(dim=1) / real.sum(dim=1).clamp(min=1)
