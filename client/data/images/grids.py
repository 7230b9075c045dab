"""Grid: voxels along the world's axes; and a volume brought there from its own grid by its affine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import nibabel as nib
import numpy as np
from scipy import ndimage

from client.data.images.nifti import Volume


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
