"""From the slices of a series to one volume: sorted by position, every property of the grid checked, values rescaled.

Coordinates are DICOM's (LPS, mm) until `to_ras`; a voxel is (column i, row j, slice k).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset

from common.errors import DataError

SAME = 1e-3  # mm, and cosines
GAP = 0.02  # of the slice distance; scanners round positions


@dataclass(frozen=True)
class DicomVolume:
    """Voxels float32 (columns, rows, slices) in the series' own units, the affine to LPS mm, and the sorted headers."""

    data: np.ndarray
    affine: np.ndarray
    headers: list[Dataset]

    @property
    def spacing(self) -> tuple[float, float, float]:
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(x), float(y), float(z)


def read_slices(files: Sequence[Path], *, role: str) -> DicomVolume:
    """The volume of a series.

    Raises:
        DataError: with every problem: unreadable pixels, a mixed series, tilted or missing slices.
    """
    slices = [_read(path, role) for path in files]
    slices = [one for one in slices if "ImagePositionPatient" in one and "ImageOrientationPatient" in one]
    if len(slices) < 2:
        raise DataError(f"The {role} series has {len(slices)} slices with a position; export the whole series.")
    problems = _mixed(slices, role)
    if problems:
        raise DataError(problems)
    normal = _normal(slices[0])
    slices.sort(key=lambda one: float(np.dot(normal, _position(one))))
    step = _step(slices, normal, role)
    data = np.stack([_values(one, role) for one in slices], axis=-1)
    return DicomVolume(data, _affine(slices[0], step), slices)


def to_ras(affine: np.ndarray) -> np.ndarray:
    """NIfTI's axes: right and anterior are positive."""
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def _read(path: Path, role: str) -> Dataset:
    try:
        return dcmread(path)
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"A {role} file cannot be read ({type(error).__name__}); export the series again.") from error


def _mixed(slices: Sequence[Dataset], role: str) -> list[str]:
    """What differs between slices that must not."""
    first = slices[0]
    names = {"orientation": "ImageOrientationPatient", "pixel spacing": "PixelSpacing"}
    problems = [
        f"The {role} series mixes slices of different {what}; export one reconstruction."
        for what, name in names.items()
        if any(len(one[name].value) != len(first[name].value) for one in slices)
        or any(np.abs(_numbers(one, name) - _numbers(first, name)).max() > SAME for one in slices)
    ]
    sizes = {(int(one.Rows), int(one.Columns)) for one in slices}
    if len(sizes) > 1:
        problems.append(f"The {role} series mixes slices of different size; export one reconstruction.")
    if {int(one.get("SamplesPerPixel", 1)) for one in slices} != {1} or any("NumberOfFrames" in one for one in slices):
        problems.append(f"The {role} series holds color or multi-frame images; export single grayscale slices.")
    return problems


def _step(slices: Sequence[Dataset], normal: np.ndarray, role: str) -> np.ndarray:
    """The vector from slice to slice. Raises DataError where it is not the same everywhere, or not along the normal."""
    positions = np.array([_position(one) for one in slices])
    along = positions @ normal
    distances = np.diff(along)
    usual = float(np.median(distances))
    if distances.min() < SAME:
        raise DataError(
            f"The {role} series has several slices at one position; it mixes reconstructions, phases or acquisitions: "
            "export one of them."
        )
    gaps = int((np.abs(distances - usual) > GAP * usual).sum())
    if gaps:
        missing = int(np.rint(distances / usual - 1).clip(0).sum())
        what = f"{missing} slices are missing" if missing else "the distance between slices varies"
        raise DataError(f"The {role} series has gaps at {gaps} places ({what}); export all slices.")
    step = (positions[-1] - positions[0]) / (len(slices) - 1)
    sideways = float(np.linalg.norm(step - normal * np.dot(step, normal)))
    if sideways > GAP * usual:
        raise DataError(
            f"The {role} slices are shifted against each other (tilted gantry, {sideways:.2f} mm a slice); resample it "
            "to an upright grid first."
        )
    return step


def _affine(first: Dataset, step: np.ndarray) -> np.ndarray:
    """Columns run along the first direction, rows along the second; PixelSpacing is (between rows, between columns)."""
    orientation = _numbers(first, "ImageOrientationPatient")
    between_rows, between_columns = _numbers(first, "PixelSpacing")
    affine = np.eye(4)
    affine[:3, 0] = orientation[:3] * between_columns
    affine[:3, 1] = orientation[3:] * between_rows
    affine[:3, 2] = step
    affine[:3, 3] = _position(first)
    return affine


def _values(one: Dataset, role: str) -> np.ndarray:
    """float32 (columns, rows)."""
    try:
        stored = one.pixel_array
    except (AttributeError, ValueError, NotImplementedError, RuntimeError, ImportError) as error:
        raise DataError(
            f"Pixels of the {role} series cannot be decoded ({type(error).__name__}); export it uncompressed."
        ) from error
    slope, intercept = float(one.get("RescaleSlope", 1.0)), float(one.get("RescaleIntercept", 0.0))
    return (stored.astype(np.float64) * slope + intercept).T.astype(np.float32)


def _normal(one: Dataset) -> np.ndarray:
    orientation = _numbers(one, "ImageOrientationPatient")
    return np.cross(orientation[:3], orientation[3:])


def _position(one: Dataset) -> np.ndarray:
    return _numbers(one, "ImagePositionPatient")


def _numbers(one: Dataset, name: str) -> np.ndarray:
    return np.array([float(value) for value in one[name].value])
