"""Patch embeddings (stems) for a modality that the backbone has never seen."""

from __future__ import annotations

import copy

from torch import Tensor, nn

from common.backbones.base import Backbone
from common.backbones.tokens import whole_patches
from common.data.batch import CT
from common.errors import AdapterError, UnknownName

INITS = ("copy", "zero")
Voxels = tuple[int, int, int]


class ZeroStem(nn.Module):
    """(B, 1, D, H, W) -> tokens (B, d, h, w, C), exactly zero until trained: attaching it changes no output bit.

    The last linear layer is zero, not the convolution, so that the first gradient is already informative.
    """

    def __init__(self, dim: int, patch: Voxels):
        super().__init__()
        self.patch = patch
        self.embed = nn.Conv3d(1, dim, kernel_size=patch, stride=patch)
        self.norm = nn.LayerNorm(dim)
        self.out = nn.Linear(dim, dim)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, volume: Tensor) -> Tensor:
        whole_patches(volume.shape[2:], self.patch)
        return self.out(self.norm(self.embed(volume).movedim(1, -1)))


def build_stem(backbone: Backbone, *, init: str, modality: str, patch: Voxels | None = None) -> nn.Module:
    """A stem for the backbone's width.

    Args:
        init: ``zero``, or ``copy`` to start as the backbone's own CT embedding (the backbone's ``ct_stem()``).
        patch: voxels of a token; None: the backbone's.
    """
    if modality == CT:
        raise AdapterError(
            "A patch_embed part is for a modality other than CT, which the backbone embeds; see the resolution part."
        )
    patch = backbone.patch if patch is None else patch
    if init == "zero":
        return ZeroStem(backbone.token_dim, patch)
    if init != "copy":
        raise UnknownName("initialisation of a patch_embed part", init, INITS)
    if patch != backbone.patch:
        raise AdapterError(
            f"The CT embedding to copy has patches of {list(backbone.patch)} voxels, the resolution part asks for "
            f"{list(patch)}; use init 'zero' for the patch_embed part."
        )
    return copy.deepcopy(backbone.ct_stem()).requires_grad_(True)
