"""A linear model of every voxel on frozen features: its columns and its module.

A structure's voxels against all others are one logistic regression on features of each modality, which passes through
the frozen model alone: raw values, blurs, and pyramid levels brought to the voxels. Rows are voxels drawn evenly from
inside and outside the structures by a seed, the same for every question; summed gradients and Hessians fit it exactly.
What drawing evenly moves, the intercept, is set at the end by a threshold for each structure
(`common.exact.thresholds`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from common.backbones.base import Level
from common.config.adapter import VoxelLinearPart
from common.config.options import PET_SUV
from common.config.step import Step
from common.data.batch import PET, volumes_of
from common.errors import AdapterError
from common.exact.columns import Layout

USUAL_SUMS = 500_000  # bytes of one answer's Hessians and gradients that levels chosen here stay below
LARGEST_SUMS = 64 << 20  # ... and that no step may ask for, whatever it declares


@dataclass(frozen=True)
class VoxelColumns:
    """Which columns a voxel has: of each modality, in this order, raw values, blurs and pyramid levels.

    Args:
        modalities: volumes that the step looks at.
        levels: position in the pyramid and channels of the frozen model's levels.
        blurs: standard deviations in voxels of the Gaussians that the raw volume is seen through.
        raw: whether the volume's own values are a column.
        log_suv: whether log(1 + SUV) of a PET in SUV is one.
    """

    modalities: tuple[str, ...]
    levels: tuple[tuple[int, int], ...]
    blurs: tuple[float, ...]
    raw: bool
    log_suv: bool = False

    def names(self, modality: str) -> tuple[str, ...]:
        """Names of one modality's columns."""
        own = ("raw",) * self.raw + ("log_suv",) * self._has_logarithm(modality)
        own += tuple(f"blur{sigma:g}" for sigma in self.blurs)
        return own + tuple(f"level{place}.{channel}" for place, width in self.levels for channel in range(width))

    def _has_logarithm(self, modality: str) -> bool:
        return self.log_suv and modality == PET

    @property
    def layout(self) -> Layout:
        """All F columns; a modality's are known in the cases that have it."""
        values = tuple(f"{modality}.{name}" for modality in self.modalities for name in self.names(modality))
        flag_of = tuple(place for place, modality in enumerate(self.modalities) for _ in self.names(modality))
        return Layout(values, self.modalities, flag_of, with_flags=False)

    def maps(self, pyramid: Sequence[Tensor], inputs: Mapping[str, Tensor]) -> list[Tensor]:
        """The columns as maps (B, c, d, h, w) of any resolutions, one after the other in the layout's order.

        Args:
            pyramid: levels (B, M x C, d, h, w), the modalities' features side by side in their order.
            inputs: modality -> (B, 1, D, H, W).
        """
        found = []
        for place, modality in enumerate(self.modalities):
            volume = inputs[modality].float()
            found += [volume] * self.raw
            found += [torch.log1p(PET_SUV[1] * volume.clamp(min=0))] * self._has_logarithm(modality)
            found += [blurred(volume, sigma) for sigma in self.blurs]
            found += [pyramid[level][:, place * width : (place + 1) * width] for level, width in self.levels]
        return found


def voxel_columns(step: Step, levels: Sequence[Level], spec: VoxelLinearPart) -> VoxelColumns:
    """The columns of a step's part on a frozen model's levels.

    Raises:
        AdapterError: a level that there is not, or sums beyond `LARGEST_SUMS`.
    """
    structures = len(step.task.structures)
    beyond = [place for place in spec.levels or [] if place >= len(levels)]
    if beyond:
        raise AdapterError(
            f"Step '{step.name}' reads levels {spec.levels} of the frozen model's pyramid, which has {len(levels)}, "
            f"from 0 (the finest) to {len(levels) - 1}."
        )
    bare = VoxelColumns(volumes_of(step.modalities), (), tuple(spec.blurs), spec.raw, spec.log_suv)
    chosen = finest_levels(bare, levels, structures) if spec.levels is None else spec.levels
    found = replace(bare, levels=tuple((place, levels[place].channels) for place in chosen))
    if (size := sums_bytes(found, structures)) > LARGEST_SUMS:
        raise AdapterError(
            f"Step '{step.name}' has {len(found.layout.values)} columns for {structures} structures: every answer would"
            f" take {size / 1e6:.0f} MB a center, and {LARGEST_SUMS / 1e6:.0f} MB are the most. Declare fewer levels "
            f"(of {[level.channels for level in levels]} channels, the finest first) or leave them out: without any, "
            f"the finest that stay below {USUAL_SUMS / 1e6:g} MB are taken."
        )
    return found


def sums_bytes(columns: VoxelColumns, structures: int) -> int:
    """Bytes of one answer of a fit: each structure's loss, gradient and lower triangle of a Hessian, float64."""
    size = 1 + len(columns.layout.values)
    return 8 * structures * (1 + size + size * (size + 1) // 2)


def finest_levels(columns: VoxelColumns, levels: Sequence[Level], structures: int) -> list[int]:
    """The levels that a step reads without declaring any: from the finest, of equally fine ones from the deepest, as
    many as stay below `USUAL_SUMS`, in the pyramid's order."""
    chosen: list[int] = []
    for place in sorted(range(len(levels)), key=lambda place: (prod(levels[place].stride), -place)):
        wider = replace(columns, levels=tuple((p, levels[p].channels) for p in [*chosen, place]))
        if sums_bytes(wider, structures) > USUAL_SUMS:
            break
        chosen.append(place)
    return sorted(chosen)


def blurred(volume: Tensor, sigma: float, *, reach: int | None = None) -> Tensor:
    """(B, 1, D, H, W) through a Gaussian of that many voxels, cut at ``reach`` (three of them); edges repeat."""
    reach = max(1, round(3 * sigma)) if reach is None else reach
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=volume.device) / sigma) ** 2)
    kernel = (kernel / kernel.sum()).to(volume.dtype)
    for axis in range(3):
        shape, pad = [1] * 5, [0] * 6
        shape[2 + axis], pad[4 - 2 * axis], pad[5 - 2 * axis] = 2 * reach + 1, reach, reach
        volume = F.conv3d(F.pad(volume, pad, mode="replicate"), kernel.reshape(shape))
    return volume


def to_voxels(level: Tensor, size: Sequence[int]) -> Tensor:
    """A map (B, c, d, h, w) at the volume's resolution, trilinear."""
    if list(level.shape[2:]) == list(size):
        return level
    return F.interpolate(level, size=list(size), mode="trilinear", align_corners=False)


def at_voxels(maps: Sequence[Tensor], chosen: Tensor, size: Sequence[int]) -> Tensor:
    """(n, F) float32: the columns of one case (maps of B = 1) at flat places (n,) of a volume (D, H, W)."""
    return torch.cat([to_voxels(level, size)[0].flatten(1)[:, chosen] for level in maps]).T


def drawn_voxels(labels: Tensor, *, count: int, share: float, ignored: int, generator: Generator) -> Tensor:
    """Flat places of at most ``count`` voxels of a label map: at most that share from inside structures, the rest from
    outside, none of them twice, in rising order. Voxels that nobody labeled are not drawn."""
    flat = labels.flatten()
    inside = ((flat > 0) & (flat != ignored)).nonzero()[:, 0]
    outside = (flat == 0).nonzero()[:, 0]
    few = min(len(inside), round(count * share))
    parts = [_some(inside, few, generator), _some(outside, count - few, generator)]
    return torch.cat(parts).sort().values


def _some(places: Tensor, count: int, generator: Generator) -> Tensor:
    return places[torch.randperm(len(places), generator=generator)[:count]]


class VoxelLinear(nn.Module):
    """Maps of the columns to logits (B, 1 + S, D, H, W), background 0; zero everywhere until it is fitted.

    ``mean`` and ``scale`` (F,) travel with it, so that a state is a whole model. A linear layer and a trilinear resize
    commute, so each level is weighed at its own resolution and only S channels are brought to the voxels.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, columns: VoxelColumns, structures: int):
        super().__init__()
        self.columns = columns
        count = len(columns.layout.values)
        self.register_buffer("mean", torch.zeros(count, dtype=torch.float64))
        self.register_buffer("scale", torch.ones(count, dtype=torch.float64))
        self.weight = nn.Parameter(torch.zeros(structures, count, dtype=torch.float64))
        self.bias = nn.Parameter(torch.zeros(structures, dtype=torch.float64))

    def forward(self, maps: Sequence[Tensor], present: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        """Logits.

        Args:
            maps: of `VoxelColumns.maps`; zero in cases that lack the modality.
            present: bool (B,) of each modality.
            size: (D, H, W) of the volume.
        """
        weight = self.weight / self.scale
        known = torch.stack(list(present), dim=1).double()  # (B, M)
        each = known[:, list(self.columns.layout.flag_of)]  # (B, F)
        start = self.bias - (each * self.mean) @ weight.T  # (B, S)
        score = start[:, :, None, None, None].expand(-1, -1, *size).float()
        first = 0
        for level in maps:
            width = level.shape[1]
            kernel = weight[:, first : first + width, None, None, None].to(level.dtype)
            score = score + to_voxels(F.conv3d(level, kernel), size).float()
            first += width
        return torch.cat([torch.zeros_like(score[:, :1]), score], dim=1)
