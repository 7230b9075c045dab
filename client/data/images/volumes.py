"""From a case's files to tensors: one grid for its volumes and the label, the crop, the intensities, and the cache.

The grid's axes are the world's (RAS); its voxels are ``view.spacing_mm``; it covers the case's reference image (the CT,
or a layout's first modality), and a crop takes a box of whole voxels from it. Images are brought there from their own
grids by their affines: low-pass filtered where the grid is coarser than they are, then linear; labels by nearest
neighbor. Tensors are (1, D, H, W) = (channel, z, y, x).

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
from torch import Tensor

from client.data.case import LABEL, Case, Values, label_values
from client.data.images.cache import VolumeCache
from client.data.images.checks import inspect
from client.data.images.cropping import foreground_center, head_neck_center
from client.data.images.grids import Grid, resample
from client.data.images.intensities import scale_of, scaled
from client.data.images.nifti import Volume, read_volume
from client.data.images.own_grid import Lattice, OwnGrid, Patch, lattice_of, smallest
from common.config.options import CROPS
from common.config.view import View
from common.data.batch import CT, PET, volumes_of
from common.errors import DataError, UnknownName

__all__ = ["Grid", "Prepared", "VolumeCache", "prepare", "resample"]

CODE = "volumes-3"  # part of every cache key: raise it when a change here changes a prepared tensor
IGNORED = 255  # of a mask: nobody drew anything there
PLAIN = [(1,), (2,)]  # a label that is a mask as it stands


@dataclass(frozen=True)
class Prepared:
    """A case on the view's grid.

    Args:
        images: by modality, float32 (1, D, H, W), scaled as the view says (`client.data.images.intensities`).
        mask: uint8 (1, D, H, W), 0 background, i for structure i (of those that hold each other, the innermost), 255
            where nobody drew anything; None where the case has no label or none was asked for.
        outside_mm3: each structure's label volume outside the crop, on the label's own grid. No prediction can reach
            it, so a score that leaves it out would be flattered.
        voxel_mm3: volume of one voxel of the grid.
        affine: (4, 4), from voxel (x, y, z) of the grid to mm in RAS.
        own_grid: the label as drawn, and where image and label lie; None where there is no mask.
    """

    images: dict[str, Tensor]
    mask: Tensor | None
    outside_mm3: tuple[float, ...]
    voxel_mm3: float
    affine: np.ndarray
    own_grid: OwnGrid | None = None


def prepare(
    case: Case,
    *,
    view: View,
    modalities: Sequence[str],
    structures: Sequence[str] | None = None,
    cache: VolumeCache | None = None,
    with_label: bool = True,
) -> Prepared:
    """The case's images among ``modalities``, and its label if it has one, as the view describes.

    Args:
        structures: whose masks are wanted, in order; None: all that the case's layout names.

    Raises:
        DataError: a file that is needed is unreadable or unusable; every problem of the case, without its ID.
        UnknownName: the view names a crop or a scaling that does not exist.
    """
    if view.crop not in CROPS:
        raise UnknownName("crop", view.crop, CROPS, where="view.crop")
    for modality in (PET, *view.intensities):
        scale_of(view, modality)
    files = _files(case, view, modalities, with_label=with_label)
    wanted = [m for m in volumes_of(modalities) if m in case.images]
    values = label_values(case, structures) if LABEL in files else PLAIN
    if cache is None:
        return _unpack(_build(case, files, view, wanted, values))
    key = cache.key(files, recipe=_recipe(case, view, wanted, values))
    tensors = cache.get(key)
    if tensors is None:
        tensors = _build(case, files, view, wanted, values)
        cache.put(key, tensors)
    return _unpack(tensors)


def _files(case: Case, view: View, modalities: Sequence[str], *, with_label: bool) -> dict[str, Path]:
    """What has to be opened: the reference always (it carries the grid), the PET also if the crop needs it."""
    first = case.reference
    if not case.has_grid:
        raise DataError(f"The case has no {first} file, which carries the grid; add it or remove the case.")
    cuts = _box_size(view) is not None and view.crop == "head_neck"
    if cuts and first != CT:
        raise DataError(
            f"view.crop is head_neck, which looks for a body in a CT, but the grid is the {first}'s; set view.crop to "
            "foreground, center or none."
        )
    seen = [m for m in volumes_of((*modalities, *((PET,) if cuts else ()))) if m in case.images and m != first]
    files = {first: case.images[first]} | {name: case.images[name] for name in seen}
    if with_label and case.label is not None:
        files[LABEL] = case.label
    return files


def _recipe(case: Case, view: View, wanted: Sequence[str], values: Sequence[Values]) -> str:
    """The settings that decide the tensors. What is as in HECKTOR is left out, so that older entries stay valid."""
    size = _box_size(view)
    crop = [view.crop, size] if size is not None else ["whole", view.window]
    pet = view.pet if PET in wanted else None
    usual = [CODE, list(wanted), view.spacing_mm, crop, view.ct_hu if CT in wanted else None, pet]
    scales = {m: scale_of(view, m) for m in wanted if m not in (CT, PET)}
    label = [values, case.ignore] if list(values) != PLAIN or case.ignore is not None else None
    others = [scales or None, label, case.reference if case.reference != CT else None]
    return json.dumps([*usual, *others] if any(others) else usual)


def _box_size(view: View) -> list[int] | None:
    return None if view.size is None or view.crop == "none" else list(view.size)


# -------------------------------------------------------------------------------------------------------- building


def _build(
    case: Case, files: Mapping[str, Path], view: View, wanted: Sequence[str], values: Sequence[Values]
) -> dict[str, Tensor]:
    volumes = _read_all(case, files)
    grid = _view_grid(volumes, view, volumes[case.reference])
    tensors = {name: _tensor(scaled(volumes[name], grid, view, modality=name)) for name in wanted}
    outside = (0.0,) * len(values)
    if LABEL in volumes:
        tensors["mask"] = _tensor(_mask(resample(volumes[LABEL], grid, order=0, outside=0.0), values, case.ignore))
        outside = _outside_mm3(volumes[LABEL], grid, values)
        tensors |= _as_drawn(volumes[case.reference], volumes[LABEL], values, case.ignore)
    tensors["outside_mm3"] = torch.tensor(outside, dtype=torch.float64)
    tensors["affine"] = torch.from_numpy(grid.affine)
    return tensors


def _read_all(case: Case, files: Mapping[str, Path]) -> dict[str, Volume]:
    volumes, problems = {}, []
    for role, path in files.items():
        try:
            volumes[role] = read_volume(path, role=role)
        except DataError as error:
            problems += error.problems
    problems += inspect(volumes, case)
    if problems:
        raise DataError(problems)
    return volumes


IMAGE, DRAWN, TRUTH, START = "image_lattice", "label_lattice", "truth", "truth_start"
NOT_IMAGES = (
    "affine",
    "mask",
    "outside_mm3",
    IMAGE,
    DRAWN,
    TRUTH,
    START,
)  # of an entry's tensors: everything but images


def _unpack(tensors: Mapping[str, Tensor]) -> Prepared:
    affine = tensors["affine"].numpy()
    return Prepared(
        images={m: tensors[m] for m in volumes_of(tensors) if m not in NOT_IMAGES},
        mask=tensors.get("mask"),
        outside_mm3=tuple(tensors["outside_mm3"].tolist()),
        voxel_mm3=round(float(abs(np.linalg.det(affine[:3, :3]))), 6),
        affine=affine,
        own_grid=_own_grid(tensors, affine) if TRUTH in tensors else None,
    )


def _as_drawn(image: Volume, label: Volume, values: Sequence[Values], ignore: int | None) -> dict[str, Tensor]:
    """The label where it was drawn, and where both files' voxels lie, as an entry of the cache keeps them."""
    truth = smallest(_mask(label.data, values, ignore))
    return {
        IMAGE: _packed(lattice_of(image)),
        DRAWN: _packed(lattice_of(label)),
        TRUTH: torch.from_numpy(truth.labels),
        START: torch.tensor(truth.start),
    }


def _packed(lattice: Lattice) -> Tensor:
    """(5, 4): the affine, and below it the counts."""
    return torch.from_numpy(np.vstack([lattice.affine, [*lattice.shape, 0]]).astype(np.float64))


def _lattice(packed: Tensor) -> Lattice:
    x, y, z = (int(n) for n in packed[4, :3])
    return Lattice((x, y, z), packed[:4].numpy())


def _own_grid(tensors: Mapping[str, Tensor], view: np.ndarray) -> OwnGrid:
    x, y, z = (int(n) for n in tensors[START])
    truth = Patch(tensors[TRUTH].numpy(), (x, y, z))
    return OwnGrid(view, _lattice(tensors[IMAGE]), _lattice(tensors[DRAWN]), truth)


def _tensor(array: np.ndarray) -> Tensor:
    """(x, y, z) -> (1, D, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(array.transpose(2, 1, 0)))[None]


# ----------------------------------------------------------------------------------------------------- grid and crop


def _view_grid(volumes: Mapping[str, Volume], view: View, reference: Volume) -> Grid:
    whole = _whole_grid(reference, np.array(view.spacing_mm[::-1], dtype=float))
    shape, size = np.array(whole.shape), _box_size(view)
    if size is None:
        padded = np.maximum(shape, view.window[::-1])
        return whole.box(-((padded - shape) // 2), padded)
    box = np.array(size[::-1])
    if view.crop == "center":
        return whole.box((shape - box) // 2, box)
    if view.crop == "foreground":
        center, covering = foreground_center(reference, is_ct=volumes.get(CT) is reference), [reference]
    else:
        center = head_neck_center(volumes[CT], volumes.get(PET))
        covering = [volumes[role] for role in (CT, PET) if role in volumes]
    start = np.rint((center - whole.origin_mm) / whole.spacing_mm - (box - 1) / 2).astype(int)
    return whole.box(_inside(start, box, *_common_range(whole, covering)), box)


def _whole_grid(reference: Volume, spacing: np.ndarray) -> Grid:
    """As many voxels as cover the image, centered on it: an unrotated one of the same spacing keeps its own lattice."""
    low, high = reference.box_mm()
    counts = np.maximum(1, np.ceil((high - low) / spacing - 1e-3)).astype(int)
    origin = (low + high) / 2 - (counts - 1) / 2 * spacing
    return Grid(origin, spacing, (int(counts[0]), int(counts[1]), int(counts[2])))


def _common_range(grid: Grid, volumes: Sequence[Volume]) -> tuple[np.ndarray, np.ndarray]:
    """First and last-plus-one voxel of the part of the grid that all of the volumes cover."""
    boxes = [volume.box_mm() for volume in volumes]
    edge = grid.origin_mm - grid.spacing_mm / 2
    low = (np.max([b[0] for b in boxes], axis=0) - edge) / grid.spacing_mm
    high = (np.min([b[1] for b in boxes], axis=0) - edge) / grid.spacing_mm
    return np.rint(low).astype(int), np.rint(high).astype(int)


def _inside(start: np.ndarray, size: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Shift a box into [low, high); where that is too small, center the box on it."""
    centered = low - (size - (high - low)) // 2
    return np.where(high - low >= size, np.clip(start, low, np.maximum(low, high - size)), centered)


def _mask(label: np.ndarray, values: Sequence[Values], ignore: int | None) -> np.ndarray:
    """Label values to places in ``values`` from 1, uint8. Of structures that hold each other the innermost counts."""
    label = label.astype(np.int64)
    mask = np.zeros(label.shape, np.uint8)
    for place in sorted(range(len(values)), key=lambda place: -len(values[place])):
        mask[np.isin(label, values[place])] = place + 1
    if ignore is not None:
        mask[label == ignore] = IGNORED
    return mask


def _outside_mm3(label: Volume, grid: Grid, values: Sequence[Values]) -> tuple[float, ...]:
    to_grid = np.linalg.inv(grid.affine) @ label.affine
    volumes = []
    for structure in values:
        inside = np.logical_or.reduce([label.data == value for value in structure])
        position = nib.affines.apply_affine(to_grid, np.argwhere(inside))
        lost = ((position < -0.5) | (position >= np.array(grid.shape) - 0.5)).any(axis=1)
        volumes.append(float(lost.sum()) * label.voxel_mm3)
    return tuple(volumes)
