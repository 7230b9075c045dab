"""Skip: a full-resolution path for a new modality, added to the decoder's CT skip (PEMMA's PET skip connection)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from common.adapters.decoder import full_resolution


class Skip(nn.Module):
    """(B, 1, D, H, W) -> (B, features, D, H, W), exactly zero until trained.

    The CT skip's block in front of a zero-initialised 1 x 1 x 1 convolution: attaching it changes no output bit, and
    the gradient of that convolution is not zero, so it can start.
    """

    def __init__(self, features: int):
        super().__init__()
        self.block = full_resolution(1, features)
        self.out = nn.Conv3d(features, features, kernel_size=1)
        with torch.no_grad():
            for parameter in self.out.parameters():
                parameter.zero_()

    def forward(self, volume: Tensor) -> Tensor:
        return self.out(self.block(volume))
