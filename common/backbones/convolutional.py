"""ConvBackbone: the encoder of a convolutional network (SegResNet, a UNet), frozen, as stages one after another.

What a plugin needs to bring its own: a first layer that makes the tokens, stages that each give one level of the
pyramid, and what the weights were trained on. Volumes reach the weights in MONAI's axes and range, as
`common.backbones.image` says.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from common.backbones.base import Level, NativeView
from common.backbones.image import ImageBackbone, transposed
from common.backbones.tokens import whole_patches
from common.errors import BackboneError

CONVOLUTIONS = "image_convolutions"  # the site of every convolution in the stages but the first layer


class ConvEmbed(nn.Module):
    """Volume (B, 1, D, H, W) to tokens (B, d, h, w, C): z y x in [-1, 1], for a layer trained on x y z in [0, 1]."""

    def __init__(self, first: nn.Module, multiple: tuple[int, int, int]):
        super().__init__()
        self.first = first
        self.multiple = multiple

    def forward(self, volume: Tensor) -> Tensor:
        whole_patches(volume.shape[-3:], self.multiple)
        return self.first(transposed((volume + 1) / 2)).permute(0, 4, 3, 2, 1)


class ConvBackbone(ImageBackbone):
    """A frozen convolutional encoder. Its pooled embedding is the mean of the deepest level.

    Args:
        first: (B, 1, x, y, z) to (B, C, x / p, y / p, z / p); another modality's tokens are added to what it gives.
        stages: each gives one level of the pyramid from the one before (the first from ``first``).
        levels: channels and stride, in voxels (depth, height, width), of what each stage gives.
        native: what the weights were trained on; CT arrives scaled to [-1, 1] from its ``ct_hu``.
        token: channels and stride of ``first``; None: those of the first level.

    Raises:
        BackboneError: not as many levels as stages.
    """

    def __init__(
        self,
        first: nn.Module,
        stages: Sequence[nn.Module],
        *,
        levels: Sequence[Level],
        native: NativeView,
        token: Level | None = None,
    ):
        super().__init__()
        if len(levels) != len(stages) or not levels:
            raise BackboneError(f"A convolutional encoder has {len(stages)} stages and {len(levels)} levels; say each.")
        self._levels, self._token = tuple(levels), token or levels[0]
        self.native, self.patch, self.image_dim = native, self._token.stride, levels[-1].channels
        self.patch_embed = ConvEmbed(first, self.multiple)
        self.stages = nn.ModuleList(stages)
        paths = {_below(name) for name, module in self.stages.named_modules() if isinstance(module, nn.Conv3d)}
        self.sites = {CONVOLUTIONS: r"stages\.(\d+)(?:" + "|".join(sorted(paths)) + ")"}
        self.blocks = {CONVOLUTIONS: len(stages)}

    @property
    def token_dim(self) -> int:
        """Channels of a token."""
        return self._token.channels

    @property
    def levels(self) -> tuple[Level, ...]:
        """What each stage gives."""
        return self._levels

    @property
    def multiple(self) -> tuple[int, int, int]:
        """Sides that every stage halves without a rest."""
        return self._levels[-1].stride

    def encode(self, tokens: list[Tensor], position: nn.Module | None) -> tuple[list[Tensor], Tensor]:
        """What every stage gives; ``position`` cannot be replaced. Raises BackboneError for levels other than said."""
        if position is not None:
            self.own_position((1, 1, 1))  # says why not
        x = transposed(tokens[0].permute(0, 4, 1, 2, 3)).contiguous()
        size = [side * step for side, step in zip(tokens[0].shape[1:4], self._token.stride, strict=True)]
        pyramid = []
        for number, (stage, level) in enumerate(zip(self.stages, self._levels, strict=True)):
            x = stage(x)
            pyramid.append(transposed(x))
            expected = (level.channels, *(side // step for side, step in zip(size, level.stride, strict=True)))
            if tuple(pyramid[-1].shape[1:]) != expected:
                raise BackboneError(
                    f"Stage {number} gives {tuple(pyramid[-1].shape[1:])} (channels, depth, height, width) where its "
                    f"level says {expected}; correct the levels of this backbone."
                )
        return pyramid, pyramid[-1].flatten(2).mean(dim=2)


def _below(name: str) -> str:
    """The path of a module below its stage, for a regular expression."""
    _, _, rest = name.partition(".")
    return r"\." + rest.replace(".", r"\.") if rest else ""
