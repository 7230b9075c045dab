"""A case's own grid: where its image and its label lie in their files, and label maps brought from grid to grid.

A label map is kept as a `Patch`, the smallest box that holds what was drawn; everything beyond is background, to the
last voxel of the image. So a score over a whole CT costs no more than the box that holds both masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import nibabel as nib
import numpy as np
from scipy import ndimage

from client.data.images.nifti import Volume

Place = Sequence[int] | np.ndarray  # indices (x, y, z)
VOXELS_AT_ONCE = 4_000_000  # interpolated at a time: tens of megabytes, however large the image


@dataclass(frozen=True)
class Lattice:
    """An image's voxels: counts (x, y, z), and the affine from their indices to mm in RAS."""

    shape: tuple[int, int, int]
    affine: np.ndarray

    @property
    def spacing_mm(self) -> np.ndarray:
        """Of its own axes."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    @property
    def voxel_mm3(self) -> float:
        return round(float(abs(np.linalg.det(self.affine[:3, :3]))), 6)

    @property
    def diagonal_mm(self) -> float:
        """From the first voxel's center to the last's: no two voxels are farther apart."""
        across = self.affine[:3, :3] @ (np.array(self.shape) - 1)
        return float(np.linalg.norm(across))

    def places_of(self, other: Lattice) -> np.ndarray:
        """(4, 4), from a voxel of the other to its place on this one; headers carry about seven digits."""
        return np.asarray(np.linalg.inv(self.affine) @ other.affine).round(6)

    def is_same(self, other: Lattice) -> bool:
        """Whether both have their voxels at the same places."""
        return self.shape == other.shape and np.array_equal(self.places_of(other), np.eye(4))


@dataclass(frozen=True)
class Patch:
    """Labels uint8 (x, y, z) of a lattice's voxels from ``start`` on; beyond it there is background."""

    labels: np.ndarray
    start: tuple[int, ...]

    def within(self, low: Place, high: Place) -> np.ndarray:
        """The labels from voxel ``low`` to ``high`` (excluded), which may begin before the patch and end after it."""
        found = np.zeros([b - a for a, b in zip(low, high, strict=True)], np.uint8)
        first = [max(s, a) for s, a in zip(self.start, low, strict=True)]
        last = [min(s + n, b) for s, n, b in zip(self.start, self.labels.shape, high, strict=True)]
        if all(a < b for a, b in zip(first, last, strict=True)):
            here = tuple(slice(a - s, b - s) for a, b, s in zip(first, last, self.start, strict=True))
            there = tuple(slice(a - s, b - s) for a, b, s in zip(first, last, low, strict=True))
            found[there] = self.labels[here]
        return found


@dataclass(frozen=True)
class OwnGrid:
    """What it takes to score a case where it was drawn.

    Args:
        view: (4, 4), from a voxel (x, y, z) of the prepared grid to mm: where a model's answer lies.
        image: the lattice of the reference image's file.
        label: the lattice of the label's file.
        truth: the expert's label as drawn: places of structures from 1, 255 where nobody drew anything.
    """

    view: np.ndarray
    image: Lattice
    label: Lattice
    truth: Patch


def lattice_of(volume: Volume) -> Lattice:
    x, y, z = volume.data.shape
    return Lattice((x, y, z), volume.affine)


def smallest(labels: np.ndarray) -> Patch:
    """The smallest patch that holds a label map; one voxel of background where there is nothing to hold."""
    if not labels.any():
        return Patch(np.zeros((1, 1, 1), np.uint8), (0, 0, 0))
    box = ndimage.find_objects((labels > 0).astype(np.uint8))[0]
    return Patch(np.ascontiguousarray(labels[box]), tuple(part.start for part in box))


def answer_on(probabilities: np.ndarray, view: np.ndarray, image: Lattice) -> Patch:
    """The most probable structure at every voxel of an image, by linear interpolation of the probabilities.

    Beyond the grid that was predicted on there is background. Only what lies within a voxel of a predicted structure is
    computed: where background wins at all eight neighbors it wins between them, so nothing else can differ.

    Args:
        probabilities: (1 + S, D, H, W), background first.
        view: (4, 4), from voxel (x, y, z) of their grid to mm in RAS.
    """
    answered = probabilities.argmax(axis=0).transpose(2, 1, 0)
    if not answered.any():
        return smallest(answered)
    box = ndimage.find_objects((answered > 0).astype(np.uint8))[0]
    first = np.maximum([part.start - 1 for part in box], 0)
    last = np.minimum([part.stop + 1 for part in box], answered.shape)
    to_view = (np.linalg.inv(view) @ image.affine).round(6)
    low, high = _reach(np.linalg.inv(to_view), [p.start - 1 for p in box], [p.stop for p in box], image.shape)
    x, y, z = (slice(a, b) for a, b in zip(first, last, strict=True))
    block = probabilities[:, z, y, x].transpose(0, 3, 2, 1)
    labels = np.zeros(np.maximum(high - low, 0), np.uint8)
    for some in _slabs(labels.shape):
        begin = low + [0, 0, some.start]  # noqa: RUF005 an array and a list
        offset = to_view[:3, :3] @ begin + to_view[:3, 3] - first
        size = (*labels.shape[:2], some.stop - some.start)
        layers = [
            ndimage.affine_transform(
                values, to_view[:3, :3], offset=offset, output_shape=size, output=np.float32, order=1,
                mode="grid-constant", cval=float(structure == 0),
            )
            for structure, values in enumerate(block)
        ]  # fmt: skip
        labels[:, :, some] = np.argmax(layers, axis=0)
    return Patch(labels, tuple(int(n) for n in low))


def moved(patch: Patch, source: Lattice, target: Lattice) -> Patch:
    """A patch of one lattice on another, by nearest neighbor; the patch itself where they are the same."""
    if source.is_same(target):
        return patch
    to_source = source.places_of(target)
    start = np.array(patch.start)
    low, high = _reach(np.linalg.inv(to_source), start - 1, start + patch.labels.shape, target.shape)
    if (low >= high).any():
        return smallest(np.zeros((1, 1, 1), np.uint8))
    offset = to_source[:3, :3] @ low + to_source[:3, 3] - start
    labels = ndimage.affine_transform(
        patch.labels, to_source[:3, :3], offset=offset, output_shape=tuple(high - low), order=0, mode="grid-constant"
    )
    return Patch(labels, tuple(int(n) for n in low))


def side_by_side(a: Patch, b: Patch) -> tuple[np.ndarray, np.ndarray]:
    """Two patches of one lattice over the box that holds both."""
    low = np.minimum(a.start, b.start)
    high = np.maximum(np.add(a.start, a.labels.shape), np.add(b.start, b.labels.shape))
    return a.within(low, high), b.within(low, high)


def _reach(to_target: np.ndarray, first: Place, last: Place, shape: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """First and last-plus-one voxel of a lattice of ``shape`` that voxels ``first`` to ``last`` of another reach."""
    corners = np.array(np.meshgrid(*zip(first, last, strict=True))).reshape(3, -1).T
    places = nib.affines.apply_affine(to_target, corners)
    low, high = np.floor(places.min(axis=0)).astype(int), np.ceil(places.max(axis=0)).astype(int) + 1
    return np.clip(low, 0, shape), np.clip(high, 0, shape)


def _slabs(shape: Sequence[int]) -> list[slice]:
    """Pieces along the last axis, each of at most `VOXELS_AT_ONCE` voxels or one slice."""
    thick = max(1, VOXELS_AT_ONCE // max(1, shape[0] * shape[1]))
    return [slice(first, min(first + thick, shape[2])) for first in range(0, shape[2], thick)]
