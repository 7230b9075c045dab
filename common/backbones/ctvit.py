"""CTViT: CT-CLIP's image encoder in plain torch, at any size, bit-compatible in names and maths with its weights.

A volume becomes tokens, the tokens of one slice attend to each other (spatial stack), then the tokens of one column
do (temporal stack; "time" is the depth axis), then each token is replaced by the nearest row of a codebook. The
oddities of the published encoder are part of what its weights mean, so they are kept on purpose; each has a comment.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.backbones.tokens import whole_patches

SIMILARITY_SCALE = 8.0


@dataclass(frozen=True)
class CtvitConfig:
    """Sizes of the encoder; the defaults are the released CT-CLIP's.

    Args:
        image_size: height and width in voxels of the pretraining grid; other grids work too.
        patch_size, temporal_patch_size: voxels of a token in height and width, and in depth.
    """

    dim: int = 512
    codebook_size: int = 8192
    image_size: int = 480
    patch_size: int = 20
    temporal_patch_size: int = 10
    spatial_depth: int = 4
    temporal_depth: int = 4
    dim_head: int = 32
    heads: int = 8
    channels: int = 1

    @property
    def patch(self) -> tuple[int, int, int]:
        """(depth, height, width) voxels of one token."""
        return self.temporal_patch_size, self.patch_size, self.patch_size


@dataclass
class Encoded:
    """What the encoder says about a batch; d, h, w count tokens.

    Args:
        hidden: four states from shallow to deep, each (B, d, h, w, C): half and all of the spatial stack, half and
            all of the temporal stack. The last one is what gets quantised.
        quantized: (B, d, h, w, C) codebook rows; the gradient passes straight through to the last hidden state.
        indices: int64 (B, d, h, w), the rows chosen.
    """

    hidden: list[Tensor]
    quantized: Tensor
    indices: Tensor


class GammaNorm(nn.Module):
    """Layer norm with a learned scale and, as a buffer, a shift that is always zero."""

    beta: Tensor

    def __init__(self, dim: int):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))
        self.register_buffer("beta", torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self.gamma, self.beta)


class PositionGenerator(nn.Module):
    """PEG: a depthwise convolution over the token grid, causal along depth."""

    def __init__(self, dim: int):
        super().__init__()
        self.dsconv = nn.Conv3d(dim, dim, 3, groups=dim)

    def forward(self, x: Tensor, grid: tuple[int, int, int, int]) -> Tensor:
        """Position signal for a sequence; ``grid`` is (B, d, h, w) and the sequence is read in that order.

        The temporal stack hands over a sequence ordered (B, h, w, d): the published encoder reads it as
        (B, d, h, w) all the same, so positions are scrambled there, and its weights have learned to live with it.
        """
        volume = x.reshape(*grid, -1).permute(0, 4, 1, 2, 3)
        padded = F.pad(volume, (1, 1, 1, 1, 2, 0))
        return self.dsconv(padded).permute(0, 2, 3, 4, 1).reshape(x.shape)


class Attention(nn.Module):
    """Multi-head attention on L2-normalised queries and keys."""

    def __init__(self, dim: int, *, heads: int, dim_head: int):
        super().__init__()
        inner = heads * dim_head
        self.heads = heads
        self.norm = GammaNorm(dim)
        self.context_norm = GammaNorm(dim)  # never used without a context; its weights exist in the checkpoint
        self.null_kv = nn.Parameter(torch.zeros(heads, 0, dim_head))  # no null tokens, yet a key of the checkpoint
        self.q_scale = nn.Parameter(torch.ones(dim_head))
        self.k_scale = nn.Parameter(torch.ones(dim_head))
        self.to_q = nn.Linear(dim, inner, bias=False)
        self.to_kv = nn.Linear(dim, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, dim, bias=False)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Attention over x (N, L, C) with an additive bias (heads, L, L)."""
        query = self.to_q(self.norm(x))
        key, value = self.to_kv(x).chunk(2, dim=-1)  # from the un-normalised x, as published
        query, key, value = (self._split(part) for part in (query, key, value))
        query = F.normalize(query, dim=-1) * self.q_scale
        key = F.normalize(key, dim=-1) * self.k_scale
        similarity = query @ key.transpose(-2, -1) * SIMILARITY_SCALE
        if bias is not None:
            similarity = similarity + bias
        out = similarity.softmax(dim=-1) @ value  # (N, heads, L, dim_head)
        return self.to_out(out.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class GatedGelu(nn.Module):
    """The first half of the channels, gated by the GELU of the second."""

    def forward(self, x: Tensor) -> Tensor:
        x, gate = x.chunk(2, dim=-1)
        return F.gelu(gate) * x


def feed_forward(dim: int) -> nn.Sequential:
    """Norm, gated expansion to 8/3 of the width, and back; indices 1 and 4 are the linear layers."""
    inner = dim * 4 * 2 // 3
    return nn.Sequential(
        nn.LayerNorm(dim),
        nn.Linear(dim, 2 * inner, bias=False),
        GatedGelu(),
        nn.Identity(),  # a dropout of 0 in the published encoder; keeps the index of the next layer
        nn.Linear(inner, dim, bias=False),
    )


class Layer(nn.ModuleDict):
    """Position signal, attention and feed-forward, each added to its input; index 2 would be cross-attention."""

    def __init__(self, dim: int, *, heads: int, dim_head: int):
        attention = Attention(dim, heads=heads, dim_head=dim_head)
        super().__init__({"0": PositionGenerator(dim), "1": attention, "3": feed_forward(dim)})

    def forward(self, x: Tensor, grid: tuple[int, int, int, int], bias: Tensor | None) -> Tensor:
        x = x + self["0"](x, grid)
        x = x + self["1"](x, bias)
        return x + self["3"](x)


class Stack(nn.Module):
    """Layers, then a norm."""

    def __init__(self, dim: int, *, depth: int, heads: int, dim_head: int):
        super().__init__()
        self.layers = nn.ModuleList(Layer(dim, heads=heads, dim_head=dim_head) for _ in range(depth))
        self.norm_out = GammaNorm(dim)

    def forward(self, x: Tensor, grid: tuple[int, int, int, int], bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The state after half of the layers (rounded up) and after all of them and the norm, both like x."""
        half = x
        for number, layer in enumerate(self.layers, start=1):
            x = layer(x, grid, bias)
            if number == (len(self.layers) + 1) // 2:
                half = x
        return half, self.norm_out(x)


class PositionBias(nn.Module):
    """Attention bias from the log distance of two tokens in a slice, by a small network; any grid fits."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        hidden = [nn.Sequential(nn.Linear(width, dim), nn.LeakyReLU(0.1)) for width in (2, dim)]
        self.net = nn.ModuleList([*hidden, nn.Linear(dim, heads)])

    def forward(self, height: int, width: int) -> Tensor:
        """Bias (heads, h*w, h*w) for a grid of h x w tokens.

        The network runs once per distinct offset, (2h-1)(2w-1) of them, and not once per pair of tokens: the same
        numbers for 150 times less work at 24 x 24.
        """
        device = next(self.parameters()).device
        rows, columns = torch.arange(height, device=device), torch.arange(width, device=device)
        dy, dx = torch.arange(1 - height, height, device=device), torch.arange(1 - width, width, device=device)
        offsets = torch.stack(torch.meshgrid(dy, dx, indexing="ij"), dim=-1).float()  # (2h-1, 2w-1, 2)
        bias = offsets.sign() * torch.log(offsets.abs() + 1)
        for layer in self.net:
            bias = layer(bias)
        down = (rows[:, None] - rows[None, :] + height - 1)[:, None, :, None]
        across = (columns[:, None] - columns[None, :] + width - 1)[None, :, None, :]
        pairs = bias[down, across]  # (h, w, h, w, heads)
        return pairs.reshape(height * width, height * width, -1).permute(2, 0, 1)


class Codebook(nn.Module):
    """The rows and their bookkeeping: buffers, so that no optimiser and no mode ever moves them."""

    initted: Tensor
    cluster_size: Tensor
    embed: Tensor

    def __init__(self, dim: int, size: int):
        super().__init__()
        self.register_buffer("initted", torch.ones(1))
        self.register_buffer("cluster_size", torch.zeros(1, size))
        self.register_buffer("embed", F.normalize(torch.randn(1, size, dim), dim=-1))


class Quantizer(nn.Module):
    """Replaces each token by the stored codebook row at the smallest angle; the same in train() and eval()."""

    def __init__(self, dim: int, size: int):
        super().__init__()
        self._codebook = Codebook(dim, size)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Quantised x (..., C) with a straight-through gradient, and the row indices (...)."""
        rows = self._codebook.embed[0]
        with torch.autocast(x.device.type, enabled=False):  # half a digit decides which row is nearest
            x = x.float()
            cosine = F.normalize(x, dim=-1) @ F.normalize(rows, dim=-1).T
        indices = cosine.argmax(dim=-1)
        # Explicit in every mode: a lookup alone would give adapters inside the encoder no gradient in eval().
        # x - x.detach() is exactly zero, so the values are exactly the stored rows.
        return rows[indices] + (x - x.detach()), indices


class CutPatches(nn.Module):
    """Cuts a volume (B, channels, D, H, W) into patches (B, d, h, w, voxels), each read as (channel, z, y, x)."""

    def __init__(self, patch: tuple[int, int, int]):
        super().__init__()
        self.patch = patch

    def forward(self, volume: Tensor) -> Tensor:
        d, h, w = whole_patches(volume.shape[-3:], self.patch)
        depth, height, width = self.patch
        cut = volume.reshape(len(volume), -1, d, depth, h, height, w, width)
        return cut.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4)


def patch_embedding(config: CtvitConfig) -> nn.Sequential:
    """Volume (B, channels, D, H, W) to tokens (B, d, h, w, C): cut, norm, linear, norm (indices 0 to 3).

    Its forward raises BackboneError where the volume is not a whole number of patches along some axis.
    """
    voxels = config.channels * config.temporal_patch_size * config.patch_size**2
    cut = CutPatches(config.patch)
    return nn.Sequential(cut, nn.LayerNorm(voxels), nn.Linear(voxels, config.dim), nn.LayerNorm(config.dim))


class Ctvit(nn.Module):
    """The encoder. State names and shapes are those of CT-CLIP's ``visual_transformer``, decoder remnants left out."""

    def __init__(self, config: CtvitConfig):
        super().__init__()
        self.config = config
        heads = {"heads": config.heads, "dim_head": config.dim_head}
        self.spatial_rel_pos_bias = PositionBias(config.dim, config.heads)
        self.to_patch_emb = patch_embedding(config)
        self.enc_spatial_transformer = Stack(config.dim, depth=config.spatial_depth, **heads)
        self.enc_temporal_transformer = Stack(config.dim, depth=config.temporal_depth, **heads)
        self.vq = Quantizer(config.dim, config.codebook_size)

    def forward(self, volume: Tensor) -> Encoded:
        """Encodes a volume (B, 1, D, H, W) scaled to [-1, 1]; D, H, W are multiples of the patch, of any size."""
        return self.encode(self.to_patch_emb(volume))

    def encode(self, tokens: Tensor, position: nn.Module | None = None) -> Encoded:
        """Encodes patch tokens (B, d, h, w, C), with another position bias network where one is given."""
        batch, d, h, w, _ = tokens.shape
        grid = (batch, d, h, w)
        slices = tokens.reshape(batch * d, h * w, -1)
        bias = (position or self.spatial_rel_pos_bias)(h, w)
        spatial = [x.reshape(tokens.shape) for x in self.enc_spatial_transformer(slices, grid, bias)]
        columns = spatial[1].permute(0, 2, 3, 1, 4).reshape(batch * h * w, d, -1)
        temporal = [
            x.reshape(batch, h, w, d, -1).permute(0, 3, 1, 2, 4) for x in self.enc_temporal_transformer(columns, grid)
        ]
        quantized, indices = self.vq(temporal[1])
        return Encoded([*spatial, *temporal], quantized, indices)
