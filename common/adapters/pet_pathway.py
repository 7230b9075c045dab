"""PET's way into a CT model (PEMMA), or another volume's: a full-resolution skip, one set of tokens made of both's.

Which modality a case has is an argument of every call, row by row. Group norm where anything is normalised: batch
statistics would mix the cases of a batch and, later, the centers.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from common.adapters.decoder import full_resolution
from common.config.options import PET_SUV
from common.data.batch import CT

GROUPS = 8
USUAL_SUV = 5.0  # brings a tumor's uptake to about 1


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


class Uptake(nn.Module):
    """A PET of absolute uptake (B, 1, D, H, W) to logits (B, outputs, D, H, W), exactly zero until trained.

    Two channels, SUV and log(1 + SUV), through two pointwise layers: no norm stands on the way, which would take from
    the decoder what "above SUV 2" is made of.
    """

    def __init__(self, width: int, outputs: int):
        super().__init__()
        self.inner = nn.Conv3d(2, width, kernel_size=1)
        self.outer = nn.Conv3d(width, outputs, kernel_size=1)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)  # type: ignore[arg-type]

    def forward(self, volume: Tensor) -> Tensor:
        """Of a volume as view.pet=suv makes it: SUV divided by `PET_SUV`'s end."""
        suv = volume * PET_SUV[1]
        both = torch.cat((suv / USUAL_SUV, torch.log1p(suv.clamp(min=0))), dim=1)
        return self.outer(nn.functional.gelu(self.inner(both)))


class Projection(nn.Linear):
    """Tokens of CT and PET side by side (..., 2C) to (..., C): a 1 x 1 x 1 convolution; starts as "take CT's"."""

    def __init__(self, dim: int):
        super().__init__(2 * dim, dim)
        with torch.no_grad():
            self.weight.copy_(torch.cat((torch.eye(dim), torch.zeros(dim, dim)), dim=1))
            self.bias.zero_()


class StandIn(nn.Module):
    """Tokens (B, d, h, w, C) of one modality to the width of two (B, d, h, w, 2C).

    Twice the tokens plus a correction that starts at zero: where only CT is there, the projection's start gives
    exactly the CT tokens.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.inner = nn.Linear(dim, dim)
        self.norm = nn.GroupNorm(_groups(dim), dim)
        self.outer = nn.Linear(dim, 2 * dim)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        inner = self.norm(self.inner(tokens).movedim(-1, 1)).movedim(1, -1).relu()
        return torch.cat((tokens, tokens), dim=-1) + self.outer(inner)


class Pathway:
    """The join that a backbone calls with the tokens of all modalities; holds modules, owns none.

    Args:
        projection: for every case.
        stand_ins: by modality, for the cases that have this one alone; without one, the tokens are doubled.
    """

    def __init__(self, projection: nn.Module, stand_ins: Mapping[str, nn.Module]):
        self.projection = projection
        self.stand_ins = dict(stand_ins)

    def __call__(self, tokens: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> Tensor:
        """Tokens (B, d, h, w, C); a case's own depend on the modalities that it has and on nothing else."""
        wide: Tensor | None = None
        for modality, alone in tokens.items():
            expand = self.stand_ins.get(modality, _doubled)
            if wide is None:
                wide = expand(alone)
            else:
                wide = torch.where(_rows(present[modality] & ~present[CT], wide), expand(alone), wide)
        assert wide is not None  # a backbone never calls a join without tokens
        for other in (m for m in tokens if m != CT and CT in tokens):  # one, where the parts hold together
            both = torch.cat((tokens[CT], tokens[other]), dim=-1).to(wide.dtype)
            wide = torch.where(_rows(present[CT] & present[other], wide), both, wide)
        return self.projection(wide)


def _doubled(tokens: Tensor) -> Tensor:
    return torch.cat((tokens, tokens), dim=-1)


def _rows(which: Tensor, like: Tensor) -> Tensor:
    return which.view(-1, *[1] * (like.ndim - 1))


def _groups(dim: int) -> int:
    """At most eight groups that divide the width."""
    return next(n for n in range(min(GROUPS, dim), 0, -1) if dim % n == 0)
