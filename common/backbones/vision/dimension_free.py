"""DimensionFree: one transformer for reports, images and volumes, as MedCoSS has it (Ye et al., CVPR 2024).

A tokenizer for each dimension (1D words, 2D patches, 3D patches) stands in front of blocks that all of them share. What
a stage of self-supervised learning changes is therefore one encoder, whatever that stage looked at.

Departures from the released code, which is neither copied nor loaded: no temporal position drawn at random and no
drop-path (both make a teacher differ from an equal student), images of one channel, any tokenizer of words. Tables of
positions are interpolated to other grids. Word embeddings and the positions of words never train and never travel: a
changed row would tell that a word occurs at a hospital, or how long its reports are.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.backbones.base import NativeView, between_ends
from common.backbones.checkpoint import load_into, read_state
from common.backbones.image import ImageBackbone
from common.backbones.text import FolderTokenizer, MiniTokenizer
from common.backbones.tokens import whole_patches
from common.config.backbones import MULTIPLES

Triple = tuple[int, int, int]

_BLOCK = r"layers\.(\d+)"
SITES = {
    "image_attention": rf"{_BLOCK}\.(?:qkv|proj)",
    "image_feedforward": rf"{_BLOCK}\.(?:up|down)",
}


@dataclass(frozen=True)
class DimensionFreeConfig:
    """Sizes of the encoder; the defaults are the paper's ViT-B.

    Args:
        patch: voxels a side of a token, in two dimensions and in three.
        length: words of a report that are read; later ones are cut off.
        scale: what each block's two branches are multiplied by at the start (LayerScale).
        has_folder: the vocabulary comes from ``backbone.text_folder``; else it is the small one that is shipped.
    """

    size: Triple = (64, 192, 192)
    patch: int = MULTIPLES["dimension_free"]["vit_b"][0]
    hidden: int = 768
    feedforward: int = 3072
    layers: int = 12
    heads: int = 12
    vocabulary: int = 30522
    length: int = 112
    scale: float = 1e-3
    has_folder: bool = True
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)
    ct_hu: tuple[float, float] = (-1024.0, 1024.0)


CONFIGS = {
    "tiny": DimensionFreeConfig(
        (48, 48, 48), MULTIPLES["dimension_free"]["tiny"][0], hidden=48, feedforward=96, layers=4, heads=4,
        vocabulary=256, scale=1.0, has_folder=False, spacing_mm=(3.0, 3.0, 3.0),
    ),
    "vit_b": DimensionFreeConfig(),
}  # fmt: skip


class SharedBlock(nn.Module):
    """Pre-norm attention and feed-forward, each branch scaled channel by channel."""

    def __init__(self, dim: int, feedforward: int, heads: int, *, scale: float = 1.0):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.up, self.down = nn.Linear(dim, feedforward), nn.Linear(feedforward, dim)
        self.scale1, self.scale2 = (nn.Parameter(torch.full((dim,), scale)) for _ in range(2))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, N, C) to the same.

        Args:
            mask: bool (B, 1, N, N), true where a query (row) may look at a key; None: everywhere.
        """
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(self.norm1(x)).chunk(3, dim=-1)
        )
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        x = x + self.scale1 * self.proj(attended.transpose(1, 2).flatten(2))
        return x + self.scale2 * self.down(F.gelu(self.up(self.norm2(x))))


class PatchTokens(nn.Module):
    """An image (B, 1, H, W) or a volume (B, 1, D, H, W) to tokens (B, *grid, C)."""

    def __init__(self, dim: int, patch: int, *, dimensions: int):
        super().__init__()
        self.patch, self.dimensions = patch, dimensions
        self.proj = (nn.Conv2d if dimensions == 2 else nn.Conv3d)(1, dim, patch, patch)

    def forward(self, image: Tensor) -> Tensor:
        sides = tuple(image.shape[2:])
        whole_patches(sides if self.dimensions == 3 else (self.patch, *sides), (self.patch,) * 3)
        return self.proj(image).movedim(1, -1)


class Positions(nn.Module):
    """Learned positions of a grid of tokens in two or three dimensions; another grid interpolates them."""

    def __init__(self, grid: tuple[int, ...], dim: int):
        super().__init__()
        self.table = nn.Parameter(torch.zeros(1, dim, *grid))
        nn.init.trunc_normal_(self.table, std=0.02)

    def forward(self, *grid: int) -> Tensor:
        """Positions (*grid, C)."""
        table: Tensor = self.table
        if tuple(table.shape[2:]) != grid:
            mode = "bilinear" if len(grid) == 2 else "trilinear"
            table = F.interpolate(table, size=grid, mode=mode, align_corners=False)
        return table[0].movedim(0, -1)

    def fit_for(self, grid: tuple[int, ...]) -> Positions:
        """A trainable table of another grid that starts as this one, interpolated."""
        with torch.no_grad():
            rows = self(*grid)
            other = Positions(grid, rows.shape[-1])
            other.table.copy_(rows.movedim(-1, 0)[None])
        return other.to(rows.device)


class DimensionFree(ImageBackbone):
    """The encoder. CT arrives scaled to [-1, 1] from ``native.ct_hu``; sides are multiples of the patch.

    Every site's blocks serve reports, images and volumes alike: a LoRA part at ``image_attention`` is the shared
    lineage of all stages.
    """

    sites = SITES
    takes_sequence = True
    stays = r"words\..*|word_positions"

    def __init__(self, config: DimensionFreeConfig = CONFIGS["vit_b"], *, text_folder: str | Path | None = None):
        super().__init__()
        self.config, dim = config, config.hidden
        self.patch, self.image_dim, self.text_dim = (config.patch,) * 3, dim, dim
        self.native = NativeView(config.spacing_mm, config.size, config.ct_hu)
        self.blocks = dict.fromkeys(SITES, config.layers)
        self.tokenizer = _tokenizer(config, text_folder)
        self.words = nn.Embedding(config.vocabulary, dim, padding_idx=0)  # in the place of the bag of words
        self.word_positions = nn.Parameter(torch.randn(config.length, dim) * 0.02)
        self.word_norm = nn.LayerNorm(dim)
        self.patch_embed = PatchTokens(dim, config.patch, dimensions=3)
        self.flat_embed = PatchTokens(dim, config.patch, dimensions=2)
        d, h, w = (side // config.patch for side in config.size)
        self.position, self.flat_position = Positions((d, h, w), dim), Positions((h, w), dim)
        self.image_norm = nn.LayerNorm(dim)  # of images and volumes
        self.cls = nn.Parameter(torch.randn(1, 1, dim) * 0.02)  # of images and volumes
        self.layers = nn.ModuleList(
            SharedBlock(dim, config.feedforward, config.heads, scale=config.scale) for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(dim)

    def own_position(self, grid: Triple) -> nn.Module:
        """A trainable position table of that token grid that starts as the frozen one, interpolated."""
        return self.position.fit_for(grid)

    def encode(self, tokens: list[Tensor], position: nn.Module | None) -> tuple[list[Tensor], Tensor]:
        """UNETR's four states (of 12 blocks: after the 4th, 7th and 10th, and the last) and the mean of all tokens."""
        grid = tokens[0].shape[1:4]
        positions = (position or self.position)(*grid)
        x = torch.cat([(part + positions).flatten(1, 3) for part in tokens], dim=1)
        states = self._states(self._with_cls(self.image_norm(x)), None)
        pyramid = [x[:, 1 : 1 + grid.numel()].transpose(1, 2).unflatten(2, grid) for x in states]
        return pyramid, states[-1].mean(dim=1)

    def read(self, ids: Tensor) -> Tensor:
        """Mean of a report's tokens (B, C)."""
        return real_mean(self.look_at_report(ids), ids)

    def words_of(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Output tokens; a word has looked at those before it."""
        ids = ids[:, : self.config.length]
        return self.look_at_report(ids), between_ends(ids)

    def look_at(self, image: Tensor, seen: Tensor | None = None) -> Tensor:
        """Output tokens of images (B, 1, H, W) or volumes (B, 1, D, H, W): CLS first, then those that are seen.

        Args:
            seen: places of the seen patches, int64 (B, V); None: all of them in order.
        """
        is_flat = image.ndim == 4
        tokens = (self.flat_embed if is_flat else self.patch_embed)(image)
        positions = (self.flat_position if is_flat else self.position)(*tokens.shape[1:-1])
        x = (tokens + positions).flatten(1, -2)
        if seen is not None:
            x = x.gather(1, seen[..., None].expand(-1, -1, x.shape[-1]))
        return self._states(self._with_cls(self.image_norm(x)), None)[-1]

    def look_at_report(self, ids: Tensor) -> Tensor:
        """Output tokens (B, L, C) of reports, int64 (B, L), 0 = padding."""
        ids = ids[:, : self.config.length]
        x = self.word_norm(self.words(ids) + self.word_positions[: ids.shape[1]])
        return self._states(x, readable(ids))[-1]

    def _with_cls(self, x: Tensor) -> Tensor:
        return torch.cat([self.cls.expand(len(x), -1, -1), x], dim=1)

    def _states(self, x: Tensor, mask: Tensor | None) -> list[Tensor]:
        states, taken = [], {self.config.layers * quarter // 4 for quarter in (1, 2, 3)}
        for number, block in enumerate(self.layers):
            x = block(x, mask)
            if number in taken:
                states.append(x)
        return [*states, self.norm(x)]


def readable(ids: Tensor) -> Tensor:
    """Which words a word may look at, bool (B, 1, L, L): earlier ones and itself, but no padding (as in the paper)."""
    length = ids.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=ids.device).tril()
    itself = torch.eye(length, dtype=torch.bool, device=ids.device)
    return ((ids != 0)[:, None, :] & causal | itself)[:, None]


def real_mean(tokens: Tensor, ids: Tensor) -> Tensor:
    """Mean (B, C) of tokens (B, L, C) over the words that are no padding; zero for an empty report."""
    real = (ids[:, : tokens.shape[1]] != 0).unsqueeze(-1)
    return (tokens * real).sum(dim=1) / real.sum(dim=1).clamp(min=1)


def _tokenizer(config: DimensionFreeConfig, folder: str | Path | None) -> FolderTokenizer | MiniTokenizer:
    if config.has_folder:
        return FolderTokenizer(folder, positions=config.length)
    from common.backbones.ct_clip import MINI_FOLDER

    return MiniTokenizer(MINI_FOLDER / "vocab.txt", positions=config.length)


def load_checkpoint(backbone: DimensionFree, path: str | Path) -> None:
    """Loads a state of this encoder.

    Raises:
        BackboneError: the file is missing, no plain state dict, or its keys do not fit (all of them named).
    """
    load_into(backbone, read_state(path), what="this dimension-free encoder", source=path)
