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

from client.dicom.values import ODD, has, number, numbers, text
from common.errors import DataError

SAME = 1e-3  # mm, and cosines
GAP = 0.02  # of the slice distance; scanners round positions
PLACED = {"a position": ("ImagePositionPatient", 3), "an orientation": ("ImageOrientationPatient", 6),
          "a pixel spacing": ("PixelSpacing", 2)}  # fmt: skip
NO_HOUNSFIELD = ("ED", "EDW", "MGML", "PCT", "Z_EFF", "IODINE")  # what a dual-energy CT may store instead of HU


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
    """The volume of a series. A slice that was exported twice, equal in every voxel, counts once.

    Raises:
        DataError: with every problem: unreadable elements or pixels, a mixed series, tilted or missing slices.
    """
    slices = [_read(path, role) for path in files]
    problems = _unplaced(slices, role)
    if len(slices) < 2 and not problems:
        problems = [f"The {role} series has {len(slices)} slices with a position; export the whole series."]
    problems = problems or _mixed(slices, role)
    if problems:
        raise DataError(problems)
    slices, values = _once([(one, _values(one, role)) for one in slices], role)
    normal = _normal(slices[0])
    order = np.argsort([float(np.dot(normal, _position(one))) for one in slices], kind="stable")
    slices = [slices[i] for i in order]
    if len(slices) < 2:
        raise DataError(f"The {role} series has 1 slice with a position; export the whole series.")
    step = _step(slices, normal, role)
    return DicomVolume(np.stack([values[i] for i in order], axis=-1), _affine(slices[0], step), slices)


def to_ras(affine: np.ndarray) -> np.ndarray:
    """NIfTI's axes: right and anterior are positive."""
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def _read(path: Path, role: str) -> Dataset:
    try:
        return dcmread(path)
    except ODD as error:
        raise DataError(f"A {role} file cannot be read ({type(error).__name__}); export the series again.") from error


def _unplaced(slices: Sequence[Dataset], role: str) -> list[str]:
    """Slices that do not say where they lie or how large they are: one sentence for each element."""
    problems = []
    for what, (name, count) in PLACED.items():
        absent = sum(numbers(one, name, count) is None for one in slices)
        if absent:
            problems.append(
                f"{absent} of {len(slices)} {role} slices have no {what.split(' ', 1)[1]} ({name} is absent, empty "
                "or no number); export the series again."
            )
    if any(number(one, "Rows") is None or number(one, "Columns") is None for one in slices):
        problems.append(f"Some {role} slices do not say how large they are (Rows, Columns); export the series again.")
    return problems


def _mixed(slices: Sequence[Dataset], role: str) -> list[str]:
    """What differs between slices that must not, and what no slice may have."""
    first = slices[0]
    names = {"orientation": "ImageOrientationPatient", "pixel spacing": "PixelSpacing"}
    problems = [
        f"The {role} series mixes slices of different {what}; export one reconstruction."
        for what, name in names.items()
        if any(np.abs(_numbers(one, name) - _numbers(first, name)).max() > SAME for one in slices)
    ]
    sizes = {(number(one, "Rows"), number(one, "Columns")) for one in slices}
    if len(sizes) > 1:
        problems.append(f"The {role} series mixes slices of different size; export one reconstruction.")
    if any((number(one, "SamplesPerPixel") or 1) != 1 or (number(one, "NumberOfFrames") or 1) != 1 for one in slices):
        problems.append(f"The {role} series holds color or multi-frame images; export single grayscale slices.")
    directions = _numbers(first, "ImageOrientationPatient").reshape(2, 3)
    if np.abs(directions @ directions.T - np.eye(2)).max() > 10 * SAME:
        problems.append(f"The {role} slices' orientation is no pair of directions; export the series again.")
    if min(_numbers(first, "PixelSpacing")) <= 0:
        problems.append(f"The {role} slices' pixel spacing is not above zero; export the series again.")
    return problems


def _once(read: Sequence[tuple[Dataset, np.ndarray]], role: str) -> tuple[list[Dataset], list[np.ndarray]]:
    """Each instance once. Raises DataError where two files of one instance differ."""
    kept: dict[object, tuple[Dataset, np.ndarray]] = {}
    for place, (one, values) in enumerate(read):
        key = text(one, "SOPInstanceUID") or place
        if key not in kept:
            kept[key] = (one, values)
            continue
        other, before = kept[key]
        if not (np.array_equal(values, before) and np.array_equal(_position(one), _position(other))):
            raise DataError(f"Two different {role} files have one instance number; export the series again.")
    return [one for one, _ in kept.values()], [values for _, values in kept.values()]


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
    except (*ODD, ImportError) as error:
        raise DataError(
            f"Pixels of the {role} series cannot be decoded ({type(error).__name__}); export it again, uncompressed."
        ) from error
    slope, intercept = _rescale(one, role)
    return (stored.astype(np.float64) * slope + intercept).T.astype(np.float32)


def _rescale(one: Dataset, role: str) -> tuple[float, float]:
    """What makes stored integers HU or Bq/mL. An empty element is no 1 and no 0: the scanner's values are unknown."""
    slope, intercept = number(one, "RescaleSlope"), number(one, "RescaleIntercept")
    if intercept is None and role != "CT" and not has(one, "RescaleIntercept"):
        intercept = 0.0  # the standard fixes it to zero for PET
    if slope is None or intercept is None or slope == 0:
        raise DataError(
            f"A {role} slice does not say what its values mean (RescaleSlope or RescaleIntercept is absent, empty, "
            "zero or no number); export the series again."
        )
    kind = text(one, "RescaleType").upper()
    if role == "CT" and kind in NO_HOUNSFIELD:
        raise DataError(f"The CT's values are '{kind}', not Hounsfield units; export the ordinary reconstruction.")
    return slope, intercept


def _normal(one: Dataset) -> np.ndarray:
    orientation = _numbers(one, "ImageOrientationPatient")
    return np.cross(orientation[:3], orientation[3:])


def _position(one: Dataset) -> np.ndarray:
    return _numbers(one, "ImagePositionPatient")


def _numbers(one: Dataset, name: str) -> np.ndarray:
    """Of an element that `_unplaced` has found complete."""
    return np.array([float(value) for value in one[name].value])
