"""From a case's files to tensors: one grid for CT, PET and label, the crop, the intensities, and the cache.

The grid's axes are the world's (RAS); its voxels are ``view.spacing_mm``; it covers the CT, and a crop takes a box of
whole voxels from it. Images are brought there from their own grids by their affines: low-pass filtered where the grid
is coarser than they are, then linear; labels by nearest neighbor. Tensors are (1, D, H, W) = (channel, z, y, x).

The crop never sees the label. ``head_neck`` looks at the PET whenever the case *has* a PET file, also when a step asks
for CT only: both steps then see the same box, which a paired comparison of CT with CT + PET needs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from client.data.images.cache import VolumeCache
from client.data.images.checks import inspect
from client.data.images.cropping import head_neck_center
from client.data.hecktor.cases import LABEL, Case
from client.data.images.nifti import Volume, read_volume
from common.data.batch import CT, MODALITY, PET, volumes_of
from common.config.options import CROPS
from common.config.view import View
from common.errors import DataError, UnknownName

__all__ = ["Grid", "Prepared", "VolumeCache", "prepare", "resample"]

CODE = "volumes-1"  # part of every cache key: raise it when a change here changes a prepared tensor
PET_SUV = (0.0, 25.0)
PERCENTILES = (0.5, 99.5)
STRUCTURES = (1, 2)


@dataclass(frozen=True)
class Prepared:
    """A case on the view's grid.

    Args:
        images: by modality, float32 (1, D, H, W); CT in [-1, 1], PET as the view says.
        mask: uint8 (1, D, H, W) of 0, 1, 2, or None where the case has no label or none was asked for.
        outside_mm3: label volume of structures 1 and 2 outside the crop, on the label's own grid. No prediction can
            reach it, so a score that leaves it out would be flattered.
        voxel_mm3: volume of one voxel of the grid.
        affine: (4, 4), from voxel (x, y, z) of the grid to mm in RAS.
    """

    images: dict[str, Tensor]
    mask: Tensor | None
    outside_mm3: tuple[float, float]
    voxel_mm3: float
    affine: np.ndarray


@dataclass(frozen=True)
class Grid:
    """Voxels along the world's axes, ordered (x, y, z): the first voxel's center, the spacing and the counts."""

    origin_mm: np.ndarray
    spacing_mm: np.ndarray
    shape: tuple[int, int, int]

    @property
    def affine(self) -> np.ndarray:
        return nib.affines.from_matvec(np.diag(self.spacing_mm), self.origin_mm)

    def box(self, start: np.ndarray, size: np.ndarray) -> Grid:
        """The same lattice from voxel ``start`` on; it may begin before this grid or end after it."""
        x, y, z = (int(n) for n in size)
        return Grid(self.origin_mm + start * self.spacing_mm, self.spacing_mm, (x, y, z))


def prepare(
    case: Case,
    *,
    view: View,
    modalities: Sequence[str],
    cache: VolumeCache | None = None,
    with_label: bool = True,
) -> Prepared:
    """The case's images among ``modalities``, and its label if it has one, as the view describes.

    Raises:
        DataError: a file that is needed is unreadable or unusable; every problem of the case, without its ID.
        UnknownName: the view names a crop or a PET scaling that does not exist.
    """
    if view.crop not in CROPS:
        raise UnknownName("crop", view.crop, CROPS, where="view.crop")
    if view.pet not in PET_SCALES:
        raise UnknownName("PET scaling", view.pet, PET_SCALES, where="view.pet")
    files = _files(case, view, modalities, with_label=with_label)
    wanted = [m for m in volumes_of(modalities) if m in case.images]
    for modality, scale in view.intensities.items():
        if scale not in SCALES:
            raise UnknownName("scaling", scale, SCALES, where=f"view.intensities, {modality}")
    if cache is None:
        return _unpack(_build(files, view, wanted))
    key = cache.key(files, recipe=_recipe(view, wanted))
    tensors = cache.get(key)
    if tensors is None:
        tensors = _build(files, view, wanted)
        cache.put(key, tensors)
    return _unpack(tensors)


def _files(case: Case, view: View, modalities: Sequence[str], *, with_label: bool) -> dict[str, Path]:
    """What has to be opened: the CT always (it carries the grid), others if asked for, the PET if the crop needs it."""
    if CT not in case.images:
        raise DataError("The case has no CT file, which carries the grid; add it or remove the case.")
    files = {CT: case.images[CT]}
    if PET in case.images and (PET in modalities or (_box_size(view) is not None and view.crop == "head_neck")):
        files[PET] = case.images[PET]
    files |= {m: case.images[m] for m in volumes_of(modalities) if m in case.images and m not in files}
    if with_label and case.label is not None:
        files[LABEL] = case.label
    return files


def _recipe(view: View, wanted: Sequence[str]) -> str:
    size = _box_size(view)
    crop = [view.crop, size] if size is not None else ["whole", view.window]
    pet = view.pet if PET in wanted else None
    others = [[m, _scale(view, m)] for m in wanted if m not in (CT, PET)]
    known = [CODE, list(wanted), view.spacing_mm, crop, view.ct_hu if CT in wanted else None, pet]
    return json.dumps([*known, *([others] if others else [])])


def _box_size(view: View) -> list[int] | None:
    return None if view.size is None or view.crop == "none" else list(view.size)


# -------------------------------------------------------------------------------------------------------- building


def _build(files: Mapping[str, Path], view: View, wanted: Sequence[str]) -> dict[str, Tensor]:
    volumes = _read_all(files)
    grid = _view_grid(volumes, view)
    tensors: dict[str, Tensor] = {}
    if CT in wanted:
        tensors[CT] = _tensor(_ct(volumes[CT], grid, view))
    if PET in wanted:
        suv = resample(volumes[PET], grid, order=1, outside=0.0)
        tensors[PET] = _tensor(PET_SCALES[view.pet](suv))
    for modality in (m for m in wanted if m not in (CT, PET)):
        values = resample(volumes[modality], grid, order=1, outside=0.0)
        tensors[modality] = _tensor(SCALES[_scale(view, modality)](values))
    outside = (0.0, 0.0)
    if LABEL in volumes:
        tensors["mask"] = _tensor(resample(volumes[LABEL], grid, order=0, outside=0.0).astype(np.uint8))
        outside = _outside_mm3(volumes[LABEL], grid)
    tensors["outside_mm3"] = torch.tensor(outside, dtype=torch.float64)
    tensors["affine"] = torch.from_numpy(grid.affine)
    return tensors


def _read_all(files: Mapping[str, Path]) -> dict[str, Volume]:
    volumes, problems = {}, []
    for role, path in files.items():
        try:
            volumes[role] = read_volume(path, role=role)
        except DataError as error:
            problems += error.problems
    problems += inspect(volumes)
    if problems:
        raise DataError(problems)
    return volumes


def _unpack(tensors: Mapping[str, Tensor]) -> Prepared:
    affine = tensors["affine"].numpy()
    first, second = tensors["outside_mm3"].tolist()
    return Prepared(
        images={m: tensors[m] for m in volumes_of(tensors) if MODALITY.fullmatch(m)},
        mask=tensors.get("mask"),
        outside_mm3=(first, second),
        voxel_mm3=round(float(abs(np.linalg.det(affine[:3, :3]))), 6),
        affine=affine,
    )


def _tensor(array: np.ndarray) -> Tensor:
    """(x, y, z) -> (1, D, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(array.transpose(2, 1, 0)))[None]


# ----------------------------------------------------------------------------------------------------- grid and crop


def _view_grid(volumes: Mapping[str, Volume], view: View) -> Grid:
    whole = _whole_grid(volumes[CT], np.array(view.spacing_mm[::-1], dtype=float))
    shape, size = np.array(whole.shape), _box_size(view)
    if size is None:
        padded = np.maximum(shape, view.window[::-1])
        return whole.box(-((padded - shape) // 2), padded)
    box = np.array(size[::-1])
    if view.crop == "center":
        return whole.box((shape - box) // 2, box)
    center = head_neck_center(volumes[CT], volumes.get(PET))
    start = np.rint((center - whole.origin_mm) / whole.spacing_mm - (box - 1) / 2).astype(int)
    return whole.box(_inside(start, box, *_common_range(whole, volumes)), box)


def _whole_grid(ct: Volume, spacing: np.ndarray) -> Grid:
    """As many voxels as cover the CT, centered on it: an unrotated CT of the same spacing keeps its own lattice."""
    low, high = ct.box_mm()
    counts = np.maximum(1, np.ceil((high - low) / spacing - 1e-3)).astype(int)
    origin = (low + high) / 2 - (counts - 1) / 2 * spacing
    return Grid(origin, spacing, (int(counts[0]), int(counts[1]), int(counts[2])))


def _common_range(grid: Grid, volumes: Mapping[str, Volume]) -> tuple[np.ndarray, np.ndarray]:
    """First and last-plus-one voxel of the part of the grid that the CT and, if there is one, the PET cover."""
    boxes = [volumes[role].box_mm() for role in (CT, PET) if role in volumes]
    edge = grid.origin_mm - grid.spacing_mm / 2
    low = (np.max([b[0] for b in boxes], axis=0) - edge) / grid.spacing_mm
    high = (np.min([b[1] for b in boxes], axis=0) - edge) / grid.spacing_mm
    return np.rint(low).astype(int), np.rint(high).astype(int)


def _inside(start: np.ndarray, size: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Shift a box into [low, high); where that is too small, center the box on it."""
    centered = low - (size - (high - low)) // 2
    return np.where(high - low >= size, np.clip(start, low, np.maximum(low, high - size)), centered)


def _outside_mm3(label: Volume, grid: Grid) -> tuple[float, float]:
    to_grid = np.linalg.inv(grid.affine) @ label.affine
    volumes = []
    for structure in STRUCTURES:
        position = nib.affines.apply_affine(to_grid, np.argwhere(label.data == structure))
        lost = ((position < -0.5) | (position >= np.array(grid.shape) - 0.5)).any(axis=1)
        volumes.append(float(lost.sum()) * label.voxel_mm3)
    return volumes[0], volumes[1]


# ------------------------------------------------------------------------------------------- resampling, intensities


def resample(
    volume: Volume, grid: Grid, *, order: int, outside: float, clip: tuple[float, float] | None = None
) -> np.ndarray:
    """The volume at the grid's voxel centers, float32 (x, y, z).

    Args:
        order: 1 linear, with a Gaussian low-pass of (step - 1) / 2 native voxels first, where one step of the grid
            spans ``step`` > 1 native voxels; 0 nearest neighbor.
        outside: value where the volume does not reach (beyond the outer edge of its voxels).
        clip: applied to the native voxels first, so that extreme paddings do not bleed.
    """
    # float32 headers carry about seven digits; rounding keeps a grid that coincides with the volume's exact
    native = np.round(np.linalg.inv(volume.affine) @ grid.affine, 6)
    matrix, offset = native[:3, :3], native[:3, 3]
    steps = np.linalg.norm(matrix, axis=1)
    sigma = np.maximum(0.0, (steps - 1) / 2) if order else np.zeros(3)
    first, last = _needed(native, grid.shape, np.ceil(3 * sigma).astype(int) + 2, volume.data.shape)
    if (first >= last).any():
        return np.full(grid.shape, outside, dtype=np.float32)
    block = volume.data[tuple(slice(a, b) for a, b in zip(first, last, strict=True))].astype(np.float32)
    block = block if clip is None else block.clip(*clip)
    block = ndimage.gaussian_filter(block, sigma=sigma, mode="nearest", truncate=3.0) if sigma.any() else block
    values = ndimage.affine_transform(
        block, matrix, offset=offset - first, output_shape=grid.shape, order=order, mode="nearest", prefilter=False
    )
    values[~_reached(native, grid.shape, volume.data.shape)] = outside
    return values


def _needed(
    native: np.ndarray, shape: Sequence[int], margin: np.ndarray, limits: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """The range of native voxels that a grid of ``shape`` draws on, with a margin, inside the volume."""
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in shape])).reshape(3, -1).T
    position = nib.affines.apply_affine(native, corners)
    first = np.floor(position.min(axis=0)).astype(int) - margin
    last = np.ceil(position.max(axis=0)).astype(int) + margin + 1
    return np.clip(first, 0, limits), np.clip(last, 0, limits)


def _reached(native: np.ndarray, shape: Sequence[int], limits: Sequence[int]) -> np.ndarray:
    """Which grid voxels lie within the volume's voxels, to their outer edge."""
    x, y, z = np.ogrid[tuple(slice(0, n) for n in shape)]
    inside = np.ones(tuple(shape), dtype=bool)
    for row, limit in zip(native[:3], limits, strict=True):
        position = row[0] * x + row[1] * y + row[2] * z + row[3]
        inside &= (position >= -0.5 - 1e-4) & (position <= limit - 0.5 + 1e-4)
    return inside


def _ct(volume: Volume, grid: Grid, view: View) -> np.ndarray:
    low, high = view.ct_hu
    hu = resample(volume, grid, order=1, outside=low, clip=(low, high))
    return (hu - np.float32(low)) / np.float32(high - low) * 2 - 1


def _zscore(suv: np.ndarray) -> np.ndarray:
    """Over the crop; a crop without any uptake stays zero."""
    return (suv - suv.mean()) / max(float(suv.std()), 1e-6)


def _suv(suv: np.ndarray) -> np.ndarray:
    return suv.clip(*PET_SUV) / PET_SUV[1]


PET_SCALES = {"suv": _suv, "zscore": _zscore}


def _scale(view: View, modality: str) -> str:
    return view.intensities.get(modality, "zscore")


def _within(values: np.ndarray) -> np.ndarray:
    """Over the voxels that are not 0, which stay 0: what lies outside the head, or outside the scan, says nothing."""
    inside = values != 0
    if not inside.any():
        return values
    found = values[inside]
    return np.where(inside, (values - found.mean()) / max(float(found.std()), 1e-6), 0).astype(np.float32)


def _percentiles(values: np.ndarray) -> np.ndarray:
    """The 0.5th and 99.5th percentile of the voxels that are not 0 become -1 and 1; a flat image becomes 0."""
    inside = values[values != 0]
    if not inside.size:
        return values
    low, high = (float(x) for x in np.percentile(inside, PERCENTILES))
    if high <= low:
        return np.zeros_like(values)
    return ((values - low) / (high - low) * 2 - 1).clip(-1, 1).astype(np.float32)


SCALES = {"percentiles": _percentiles, "zscore": _within}
