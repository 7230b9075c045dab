"""One head-and-neck case: CT in HU and PET in SUV on their own grids, and the tumor mask on the CT grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from simulations.phantom.anatomy import base_volume, benign_nodes, body_on, false_uptake, organs
from simulations.phantom.centers import HEAD_NECK_MM, WHOLE_BODY_MM, CenterSpec
from simulations.phantom.lesions import draw_lesions
from simulations.phantom.records import Patient
from simulations.phantom.shapes import Axes, Blob, Grid, Volume, Waves, box_of, cut, occupancy, paint

BODY_SIZE = (0.94, 1.06)  # patients against the atlas; 12 % keeps the shoulders out of a head-and-neck field
PET_STEP = 1 / 16  # SUV step of the stored PET, as the scanners' integers give it; also what lets gzip work
CT_STEP = 4  # HU step of the stored CT; halves the file, far below the noise
AIR_NOISE = 0.1  # noise of air against tissue: reconstructions clip it
PADDING_HU = ((-1024, 0.90), (-3024, 0.08), (-10505, 0.02))  # outside the circular field; the real minima
DENTAL_METAL = 0.25  # share of patients with a filling and its streaks
METAL_HU, EXTREME_HU, EXTREME_SHARE = 3071, 27205, 0.02  # the scanners' ceiling, and the real data's extreme value


@dataclass(frozen=True)
class HeadNeckCase:
    """Arrays ordered (x, y, z) in RAS: CT int16 (HU), PET float32 (SUV), mask uint8 (0, 1 GTVp, 2 GTVn; with
    organs also 3 brain, 4 benign node, 5 parotid, 6 thyroid)."""

    ct: NDArray[np.int16]
    pet: Volume
    mask: NDArray[np.uint8]
    ct_grid: Grid
    pet_grid: Grid


def draw_case(patient: Patient, *, organs_too: bool = False) -> HeadNeckCase:
    """The images of a patient; the same patient gives the same bytes.

    Args:
        organs_too: the mask also holds what `simulations.phantom.anatomy` labels, under the tumors; images stay.
    """
    rng = np.random.default_rng(np.random.SeedSequence(patient.seed))
    ct_grid, pet_grid, offset = _draw_grids(rng, patient.center)
    size = float(rng.uniform(*BODY_SIZE))
    lesions = draw_lesions(rng, patient.tumor, size=size)
    streaks = Waves.draw(rng, wavelength_mm=(18, 55), terms=14)
    scene = [*organs(rng), *benign_nodes(rng), *false_uptake(rng, lesions)]
    drawn = [*scene, *lesions] if organs_too else lesions
    ct, mask = _draw_ct(rng, ct_grid, scene, lesions, drawn, streaks=streaks, size=size, center=patient.center)
    pet = _draw_pet(rng, pet_grid, scene, lesions, streaks=streaks, size=size, center=patient.center)
    return HeadNeckCase(ct, pet, mask, _moved(ct_grid, offset), _moved(pet_grid, offset))


def _moved(grid: Grid, offset: NDArray[np.float64]) -> Grid:
    x, y, z = (round(o + float(d), 3) for o, d in zip(grid.origin_mm, offset, strict=True))
    return Grid(grid.size, grid.spacing_mm, (x, y, z))


def _draw_grids(rng: np.random.Generator, center: CenterSpec) -> tuple[Grid, Grid, NDArray[np.float64]]:
    """CT and PET grids in atlas position, and where the scanner's coordinates put them."""
    whole_body = rng.random() < center.whole_body
    extent = (WHOLE_BODY_MM if whole_body else HEAD_NECK_MM) * rng.uniform(0.96, 1.04)
    top = rng.uniform(126, 138)
    ct = _grid(rng, center.ct_spacing_mm, center.ct_pixels, top=top, extent=extent, zoom=rng.uniform(0.96, 1.04))
    pet_top, pet_extent = top + rng.uniform(-5, 8), extent * rng.uniform(0.97, 1.05)
    pet = _grid(rng, center.pet_spacing_mm, center.pet_pixels, top=pet_top, extent=pet_extent, zoom=1.0)
    return ct, pet, rng.uniform((-20, -40, -900), (20, 40, 300))


def _grid(
    rng: np.random.Generator, spacing: tuple[float, float], pixels: int, *, top: float, extent: float, zoom: float
) -> Grid:
    plane, height = round(spacing[0] * zoom, 3), spacing[1]
    slices = round(extent / height)
    x, y = (float(-plane * (pixels - 1) / 2 + rng.uniform(-4, 4)) for _ in range(2))
    return Grid((pixels, pixels, slices), (plane, plane, height), (x, y, float(top - height * (slices - 1))))


# --------------------------------------------------------------------------------------------------------------- CT


def _draw_ct(
    rng: np.random.Generator,
    grid: Grid,
    scene: list[Blob],
    lesions: list[Blob],
    drawn_in: list[Blob],
    *,
    streaks: Waves,
    size: float,
    center: CenterSpec,
) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """The image, and the mask of the blobs in ``drawn_in``, later ones over earlier ones."""
    axes, softness = grid.axes(shrink=size), float(np.mean(grid.spacing_mm)) / size
    body = body_on(axes, streaks)
    volume = base_volume(body, modality="CT")
    for blob in scene:
        paint(volume, blob, axes, modality="CT", softness_mm=softness)
    volume[body.depth < 0] = -1000.0
    mask = _mask(volume, drawn_in, axes, depth=body.depth, softness=softness)
    bone = volume > 200
    drawn = volume.copy()
    for blob in lesions:
        paint(drawn, blob, axes, modality="CT", softness_mm=softness)
    volume = np.where(bone | (body.depth < 3), volume, drawn)
    _add_couch(volume, grid.axes())
    metal = _add_metal(rng, volume, axes)
    noise = gaussian_filter(rng.standard_normal(volume.shape, dtype=np.float32), 0.55)
    volume += (
        noise * np.float32(1.8 * center.ct_noise_hu) * np.where(volume < -900, np.float32(AIR_NOISE), np.float32(1))
    )
    return _padded(rng, np.clip(np.rint(volume / CT_STEP) * CT_STEP, -1024, METAL_HU), grid.axes(), metal=metal), mask


def _mask(volume: Volume, blobs: list[Blob], axes: Axes, *, depth: Volume, softness: float) -> NDArray[np.uint8]:
    """Labels where a blob that has one fills more than half of a voxel that is neither bone nor skin."""
    mask = np.zeros(volume.shape, np.uint8)
    for blob in blobs:
        if blob.label:
            box = box_of(blob, axes)
            filled, _ = occupancy(blob, cut(axes, box), softness_mm=softness)
            mask[box][(filled > 0.5) & (volume[box] <= 200) & (depth[box] >= 3)] = blob.label
    return mask


def _add_couch(volume: Volume, axes: Axes) -> None:
    y = axes[1]
    plate = np.flatnonzero((y > -128) & (y < -118))
    volume[:, plate, :] = np.maximum(volume[:, plate, :], -150.0)


def _add_metal(rng: np.random.Generator, volume: Volume, axes: Axes) -> bool:
    """A dental filling with bright and dark streaks across its slices."""
    has_metal, z, side, waves = rng.random() < DENTAL_METAL, rng.uniform(-56, -48), rng.choice((-1, 1)), rng.random(2)
    if not has_metal:
        return False
    slices = np.flatnonzero(np.abs(axes[2] - z) < 4)
    angle = np.arctan2(axes[1][None, :] - 66, axes[0][:, None] - side * 30)
    streak = 120 * np.cos(angle * (7 + round(4 * waves[0])) + 6 * waves[1])
    near = np.exp(-np.hypot(axes[1][None, :] - 66, axes[0][:, None] - side * 30) / 30)
    volume[:, :, slices] += (streak * near).astype(np.float32)[:, :, None]
    paint(volume, Blob((side * 30, 66, z), (5, 5, 5), 9000), axes, modality="CT", softness_mm=4)
    return True


def _padded(rng: np.random.Generator, volume: Volume, axes: Axes, *, metal: bool) -> NDArray[np.int16]:
    """Integers, with the reconstruction circle's padding and, rarely, the real data's extreme value."""
    values, shares = zip(*PADDING_HU, strict=True)
    padding, extreme = rng.choice(values, p=shares), rng.random() < EXTREME_SHARE
    radius = min(abs(axes[0][0]), abs(axes[0][-1]), abs(axes[1][0]), abs(axes[1][-1]))
    outside = axes[0][:, None] ** 2 + axes[1][None, :] ** 2 > radius**2
    out = volume.astype(np.int16)
    out[outside] = padding
    if metal and extreme:
        out[volume >= METAL_HU] = EXTREME_HU
    return out


# -------------------------------------------------------------------------------------------------------------- PET


def _draw_pet(
    rng: np.random.Generator,
    grid: Grid,
    scene: list[Blob],
    lesions: list[Blob],
    *,
    streaks: Waves,
    size: float,
    center: CenterSpec,
) -> Volume:
    axes, softness = grid.axes(shrink=size), float(np.mean(grid.spacing_mm)) / size
    body = body_on(axes, streaks)
    volume = base_volume(body, modality="PET")
    for blob in [*scene, *lesions]:
        paint(volume, blob, axes, modality="PET", softness_mm=softness)
    volume *= np.clip(body.depth / softness + 0.5, 0, 1)
    sigma = [center.pet_fwhm_mm / 2.355 / step for step in grid.spacing_mm]
    volume = gaussian_filter(volume, sigma)
    noise = gaussian_filter(rng.standard_normal(volume.shape, dtype=np.float32), 0.6) * np.float32(2.0)
    volume += noise * center.pet_noise * np.sqrt(volume)
    return (np.rint(np.maximum(volume, 0) / PET_STEP) * PET_STEP).astype(np.float32)
