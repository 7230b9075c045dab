"""Where the head and neck are, without looking at a label: the official PET rule and a CT rule for want of a PET.

The official rule (HECKTOR 2020/21, FACTS A5): smooth the SUV with a Gaussian of 3 voxels, take SUV > 3, call the
component that is largest in the top third of the scan the brain (threshold 0.1 if there is none), and lay a cube of
144 mm: its top 30 mm above the brain's lowest voxel, its center 30 mm in front of the brain's, centered left-right.
Ours returns the cube's center, so that a view of another size looks at the same place.
"""

from __future__ import annotations

import nibabel as nib
import numpy as np
from scipy import ndimage

from client.data.images.nifti import Volume

CUBE_MM, ABOVE_MM, FORWARD_MM = 144.0, 30.0, 30.0
SIGMA_VOXELS, SIGMA_MM = 3.0, 16.5  # 3 voxels, but never more than on HECKTOR's coarsest grid (5.5 mm)
THRESHOLDS = (3.0, 0.1)

BODY_HU = -300.0
BODY_GRID_MM = 4.0
BRIGHT_PERCENT, FOREGROUND_SHARE = 99.5, 0.01
BRAIN_MM = 130.0  # skin of the vertex to the lowest voxel of the brain in an adult
CUT_BRAIN_MM = 60.0  # the same where the scan starts below the vertex: what is likely left of it
CUT_AREA_MM2 = 6000.0  # a head cut through: its top slice is larger than a vertex


def head_neck_center(ct: Volume, pet: Volume | None) -> np.ndarray:
    """Center (x, y, z) in mm of the head-and-neck cube: from PET where there is one, else from the CT's body."""
    brain = None if pet is None else _brain_in_pet(pet)
    low, high = brain or _brain_in_ct(ct)
    middle = (low + high) / 2
    return np.array([middle[0], middle[1] + FORWARD_MM, low[2] + ABOVE_MM - CUBE_MM / 2])


def foreground_center(volume: Volume, *, is_ct: bool) -> np.ndarray:
    """Middle (x, y, z) in mm of the box of what is no background: the largest piece above air in a CT (-300 HU), and
    in any other image above a hundredth of the way from its lowest value to a bright one."""
    strides = np.maximum(1, np.rint(BODY_GRID_MM / volume.spacing).astype(int))
    coarse = volume.data[tuple(slice(None, None, step) for step in strides)]
    inside = _largest(coarse > (BODY_HU if is_ct else _background(coarse)), start=0)
    low, high = volume.box_mm() if inside is None else _extent(inside, volume.affine @ np.diag([*strides, 1.0]))
    return (low + high) / 2


def _background(data: np.ndarray) -> float:
    low, bright = float(data.min()), float(np.percentile(data, BRIGHT_PERCENT))
    return low + FOREGROUND_SHARE * (bright - low)


def _brain_in_pet(pet: Volume) -> tuple[np.ndarray, np.ndarray] | None:
    sigma = np.minimum(SIGMA_VOXELS, SIGMA_MM / pet.spacing)
    smooth = ndimage.gaussian_filter(pet.data.astype(np.float32), sigma=sigma)
    for threshold in THRESHOLDS:
        brain = _largest(smooth > threshold, start=smooth.shape[2] * 2 // 3)
        if brain is not None:
            return _extent(brain, pet.affine)
    return None


def _brain_in_ct(ct: Volume) -> tuple[np.ndarray, np.ndarray]:
    """The box where a brain should be: from the top of the body mask downwards, as wide as the head there."""
    strides = np.maximum(1, np.rint(BODY_GRID_MM / ct.spacing).astype(int))
    coarse = ct.data[tuple(slice(None, None, step) for step in strides)]
    affine = ct.affine @ np.diag([*strides, 1.0])
    body = _largest(ndimage.binary_opening(coarse > BODY_HU, iterations=2), start=0)
    if body is None:
        return ct.box_mm()
    slices = np.flatnonzero(body.any(axis=(0, 1)))
    area = body[:, :, slices[-1]].sum() * np.prod(ct.spacing[:2] * strides[:2])
    depth = CUT_BRAIN_MM if slices[-1] >= body.shape[2] - 2 and area > CUT_AREA_MM2 else BRAIN_MM
    head = body.copy()
    head[:, :, : max(0, slices[-1] - int(depth / 2 / (ct.spacing[2] * strides[2])))] = False  # no jaw, no shoulders
    low, high = _extent(head, affine)
    return np.array([low[0], low[1], high[2] - depth]), high


def _largest(mask: np.ndarray, *, start: int) -> np.ndarray | None:
    """The whole of the component that has most voxels at or above slice ``start``."""
    labels, count = ndimage.label(mask)
    sizes = np.bincount(labels[:, :, start:].ravel(), minlength=count + 1)[1:]
    return labels == int(sizes.argmax()) + 1 if sizes.any() else None


def _extent(mask: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest voxel center of a mask in mm, axis by axis."""
    points = nib.affines.apply_affine(affine, np.argwhere(mask))
    return points.min(axis=0), points.max(axis=0)
