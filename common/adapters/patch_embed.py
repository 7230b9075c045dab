"""Patch embeddings (stems) for a modality that the backbone has never seen; their tokens are added to the CT tokens."""

from __future__ import annotations

import copy

from torch import Tensor, nn

from common.backbones.base import Backbone
from common.batch import CT
from common.errors import AdapterError, UnknownName

INITS = ("copy", "zero")


class ZeroStem(nn.Module):
    """(B, 1, D, H, W) -> tokens (B, d, h, w, C), exactly zero until trained: attaching it changes no output bit.

    The last linear layer is zero, not the convolution, so that the first gradient is already informative.
    """

    def __init__(self, dim: int, patch: tuple[int, int, int]):
        super().__init__()
        self.embed = nn.Conv3d(1, dim, kernel_size=patch, stride=patch)
        self.norm = nn.LayerNorm(dim)
        self.out = nn.Linear(dim, dim)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, volume: Tensor) -> Tensor:
        return self.out(self.norm(self.embed(volume).movedim(1, -1)))


def build_stem(backbone: Backbone, *, init: str, modality: str) -> nn.Module:
    """A stem for the backbone's patch and width.

    Args:
        init: ``zero``, or ``copy`` to start as the backbone's own CT embedding (the backbone's ``ct_stem()``).
    """
    if modality == CT:
        raise AdapterError("A patch_embed part is for a modality other than CT, whose embedding the backbone has.")
    if init == "zero":
        return ZeroStem(backbone.image_dim, backbone.patch)
    if init == "copy":
        return _copy_of_ct(backbone)
    raise UnknownName("initialisation of a patch_embed part", init, INITS)


def _copy_of_ct(backbone: Backbone) -> nn.Module:
    ct_stem = getattr(backbone, "ct_stem", None)
    if ct_stem is None:
        raise AdapterError(
            f"{type(backbone).__name__} has no CT patch embedding to copy; use init 'zero' for the patch_embed part."
        )
    return copy.deepcopy(ct_stem()).requires_grad_(True)
