"""Grids, soft-edged ellipsoids and smooth random fields: the drawing kit shared by head-and-neck and chest.

Arrays here are ordered (x, y, z) in RAS millimetres: x to the right, y to the front, z to the head.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Volume = NDArray[np.float32]
Axes = tuple[Volume, Volume, Volume]
Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Grid:
    """A regular grid: voxels, spacing in mm, and the position in mm of the center of voxel (0, 0, 0)."""

    size: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float, float]

    def axes(self, *, shrink: float = 1.0) -> Axes:
        """Voxel centers along x, y and z in mm, divided by `shrink` (a patient's size against the atlas)."""
        x, y, z = (
            ((origin + spacing * np.arange(count)) / shrink).astype(np.float32)
            for count, spacing, origin in zip(self.size, self.spacing_mm, self.origin_mm, strict=True)
        )
        return x, y, z


@dataclass(frozen=True)
class Waves:
    """A smooth random field: a sum of plane waves in random directions, so that any grid samples the same field."""

    frequency: NDArray[np.float32]  # (3, terms), radians per mm
    phase: NDArray[np.float32]  # (terms,)

    @classmethod
    def draw(cls, rng: np.random.Generator, *, wavelength_mm: tuple[float, float], terms: int = 10) -> Waves:
        direction = rng.standard_normal((3, terms))
        direction /= np.linalg.norm(direction, axis=0)
        frequency = direction * 2 * math.pi / rng.uniform(*wavelength_mm, terms)
        return cls(frequency.astype(np.float32), rng.uniform(0, 2 * math.pi, terms).astype(np.float32))

    def on(self, axes: Axes) -> Volume:
        """Values on the axes, (nx, ny, nz); mean 0 and variance 1 over a large region."""
        x, y, z = (k[:, None] * axis[None] for k, axis in zip(self.frequency, axes, strict=True))  # each (terms, n)
        plane = (x[:, :, None] + y[:, None, :] + self.phase[:, None, None]).reshape(len(x), -1)
        # cos(plane + z) by the addition theorem, so that the volume is two matrix products
        field = np.cos(plane).T @ np.cos(z) - np.sin(plane).T @ np.sin(z)
        return (field * np.float32(math.sqrt(2 / len(x)))).reshape(*(len(axis) for axis in axes))


@dataclass(frozen=True)
class Blob:
    """An ellipsoid with its values. `None` leaves that modality as it is.

    Args:
        center, radii: mm.
        hu, suv: value on CT and on PET.
        label: what the mask holds there (0: nothing).
        rough: relative depth of the bumps that `waves` puts on the surface.
        texture_hu, texture_suv: amplitude of `waves` inside, in HU and as a fraction of `suv`.
    """

    center: tuple[float, float, float]
    radii: tuple[float, float, float]
    hu: float | None = None
    suv: float | None = None
    label: int = 0
    rough: float = 0.0
    texture_hu: float = 0.0
    texture_suv: float = 0.0
    waves: Waves | None = None


def box_of(blob: Blob, axes: Axes) -> Box:
    """The part of the grid that the blob can touch."""
    reach = 1.0 + 3 * blob.rough
    x, y, z = (
        slice(int(np.searchsorted(axis, c - r * reach - 2)), int(np.searchsorted(axis, c + r * reach + 2)))
        for axis, c, r in zip(axes, blob.center, blob.radii, strict=True)
    )
    return x, y, z


def occupancy(blob: Blob, axes: Axes, *, softness_mm: float) -> tuple[Volume, Volume | None]:
    """How much of each voxel the blob fills (0 to 1), and its texture, on axes already cut to its box."""
    x, y, z = (((axis - c) / r) ** 2 for axis, c, r in zip(axes, blob.center, blob.radii, strict=True))
    distance = np.sqrt(x[:, None, None] + y[None, :, None] + z[None, None, :])
    texture = blob.waves.on(axes) if blob.waves is not None else None
    if texture is not None and blob.rough:
        distance = distance + blob.rough * np.clip(texture, -2, 2)
    filled = np.clip(0.5 + (1.0 - distance) * np.float32(min(blob.radii) / softness_mm), 0.0, 1.0)
    return filled, texture


def paint(volume: Volume, blob: Blob, axes: Axes, *, modality: str, softness_mm: float) -> None:
    """Blend one blob into a CT or PET volume, in place."""
    value = blob.hu if modality == "CT" else blob.suv
    box = box_of(blob, axes)
    if value is None or any(part.start >= part.stop for part in box):
        return
    filled, texture = occupancy(blob, cut(axes, box), softness_mm=softness_mm)
    inside: float | Volume = value
    if texture is not None:
        amplitude = blob.texture_hu if modality == "CT" else blob.texture_suv * value
        inside = value + np.float32(amplitude) * texture
    volume[box] += filled * (inside - volume[box])


def cut(axes: Axes, box: Box) -> Axes:
    """The axes of a box."""
    return axes[0][box[0]], axes[1][box[1]], axes[2][box[2]]


def radii_of(milliliters: float, *, ratios: tuple[float, float, float]) -> tuple[float, float, float]:
    """Radii in mm of an ellipsoid with that volume and those proportions."""
    unit = (milliliters * 1000 / (4 / 3 * math.pi * math.prod(ratios))) ** (1 / 3)
    return ratios[0] * unit, ratios[1] * unit, ratios[2] * unit
