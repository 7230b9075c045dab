"""Intensities: how each modality's voxels become numbers of about one size, by rules that the view names."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from client.data.images.grids import Grid, resample
from client.data.images.nifti import Volume
from common.config.options import PET_SUV
from common.config.view import View
from common.data.batch import CT, PET
from common.errors import UnknownName

PERCENTILES = (0.5, 99.5)
Scale = Callable[[np.ndarray], np.ndarray]


def scaled(volume: Volume, grid: Grid, view: View, *, modality: str) -> np.ndarray:
    """The volume on the grid, float32 (x, y, z), scaled by the view's rule for the modality."""
    if modality == CT:
        low, high = view.ct_hu
        hu = resample(volume, grid, order=1, outside=low, clip=(low, high))
        return (hu - np.float32(low)) / np.float32(high - low) * 2 - 1
    rules = PET_SCALES if modality == PET else SCALES
    return rules[scale_of(view, modality)](resample(volume, grid, order=1, outside=0.0))


def scale_of(view: View, modality: str) -> str:
    """The name of the rule of a modality other than CT. Raises UnknownName where there is no such rule."""
    name = view.pet if modality == PET else view.intensities.get(modality, "zscore")
    rules, where = (PET_SCALES, "view.pet") if modality == PET else (SCALES, f"view.intensities, {modality}")
    if name not in rules:
        raise UnknownName("scaling", name, rules, where=where)
    return name


def _zscore(suv: np.ndarray) -> np.ndarray:
    """Over the crop; a crop without any uptake stays zero."""
    return (suv - suv.mean()) / max(float(suv.std()), 1e-6)


def _suv(suv: np.ndarray) -> np.ndarray:
    return suv.clip(*PET_SUV) / PET_SUV[1]


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


PET_SCALES: dict[str, Scale] = {"suv": _suv, "zscore": _zscore}
SCALES: dict[str, Scale] = {"percentiles": _percentiles, "zscore": _within}
