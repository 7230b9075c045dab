"""From an RTSTRUCT's contours to a label map on the CT's grid.

A voxel belongs to a structure where its center lies inside an odd number of the contours of its slice (even-odd rule),
so that a ring drawn as two contours, or with a keyhole, has its hole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

import nibabel as nib
import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset

from client.dicom.volume import DicomVolume
from common.errors import DataError

GTVP, GTVN = "GTVp", "GTVn"
LABELS = {GTVP: 1, GTVN: 2}
NAMES: dict[str, list[str]] = {  # HECKTOR's structures; patterns without regard to case, of names that clinics use
    GTVP: ["gtvp*", "gtv-p*", "gtv_p*", "gtv p*", "gtv t*", "gtvt*", "gtv-t*", "gtv_t*", "gtv",
           "gtv-1", "gtv1", "gtv primary*"],
    GTVN: ["gtvn*", "gtv-n*", "gtv_n*", "gtv n*", "gtv ln*", "gtvln*", "gtv node*", "gtvnode*"],
}  # fmt: skip
OFF_SLICE = 0.5  # of the slice distance: a contour farther than this from any slice is on none


@dataclass
class Drawn:
    """A label map uint8 (columns, rows, slices), which regions became which label, and what was left out."""

    label: np.ndarray
    used: dict[str, list[str]] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def draw(path: Path, ct: DicomVolume, *, names: Mapping[str, Sequence[str]] = NAMES) -> Drawn:
    """The label map of an RTSTRUCT. A voxel of both structures is the primary's.

    Args:
        names: structure -> patterns of region names, ``*`` for anything.

    Raises:
        DataError: the file is unreadable, a name fits both structures, or contours do not lie on the CT.
    """
    try:
        drawing = dcmread(path)
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"The RTSTRUCT cannot be read ({type(error).__name__}); export it again.") from error
    chosen, unused = match_names(_region_names(drawing), names)
    drawn = Drawn(np.zeros(ct.data.shape, np.uint8), {s: sorted(r.values()) for s, r in chosen.items()}, unused)
    contours = {int(item.ReferencedROINumber): item for item in drawing.get("ROIContourSequence", [])}
    for structure in sorted(chosen, key=lambda name: -LABELS[name]):  # the primary last: it wins where both are
        for number in chosen[structure]:
            mask, off = _fill(contours.get(number), ct)
            drawn.label[mask] = LABELS[structure]
            if off:
                drawn.notes.append(f"{off} contours of {structure} lie outside the CT and were left out")
    return drawn


def match_names(
    regions: Mapping[int, str], names: Mapping[str, Sequence[str]]
) -> tuple[dict[str, dict[int, str]], list[str]]:
    """Region numbers and names by structure, and the names that fit none. Raises DataError where one fits several."""
    chosen: dict[str, dict[int, str]] = {}
    unused = []
    for number, region in sorted(regions.items()):
        plain = " ".join(region.lower().split())
        fits = [s for s, patterns in names.items() if any(fnmatchcase(plain, p.lower()) for p in patterns)]
        if len(fits) > 1:
            raise DataError(
                f"The region '{region}' fits the names of {' and '.join(fits)}; make --names tell them apart."
            )
        if fits:
            chosen.setdefault(fits[0], {})[number] = region
        else:
            unused.append(region)
    return chosen, unused


def inside(polygon: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """bool ``shape``: pixel centers (i, j) inside a closed polygon (n, 2), by the even-odd rule.

    A center on an edge counts as inside for edges to its right only, so that two polygons which share an edge never
    both hold it.
    """
    mask = np.zeros(shape, dtype=bool)
    low = np.maximum(np.floor(polygon.min(axis=0)).astype(int), 0)
    high = np.minimum(np.ceil(polygon.max(axis=0)).astype(int) + 1, shape)
    if (low >= high).any():
        return mask
    i = np.arange(low[0], high[0])[:, None]
    j = np.arange(low[1], high[1])[None, :]
    odd = np.zeros((i.size, j.size), dtype=bool)
    for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        if y0 == y1:
            continue
        crosses = (y0 > j) != (y1 > j)
        odd ^= crosses & (i < (x1 - x0) * (j - y0) / (y1 - y0) + x0)
    mask[low[0] : high[0], low[1] : high[1]] = odd
    return mask


def _region_names(drawing: Dataset) -> dict[int, str]:
    return {int(item.ROINumber): str(item.get("ROIName", "")) for item in drawing.get("StructureSetROISequence", [])}


def _fill(region: Dataset | None, ct: DicomVolume) -> tuple[np.ndarray, int]:
    """The mask of one region and the number of its contours outside the CT."""
    columns, rows, count = ct.data.shape
    mask = np.zeros((columns, rows, count), dtype=bool)
    to_voxel = np.linalg.inv(ct.affine)
    outside = 0
    for contour in [] if region is None else region.get("ContourSequence", []):
        if str(contour.get("ContourGeometricType", "")).upper() != "CLOSED_PLANAR":
            continue
        points = np.array([float(v) for v in contour.ContourData]).reshape(-1, 3)
        voxels = nib.affines.apply_affine(to_voxel, points)
        slices = voxels[:, 2]
        if np.ptp(slices) > OFF_SLICE:
            raise DataError("The RTSTRUCT's contours are not in the planes of the CT; export it with its own CT.")
        number = int(np.rint(slices.mean()))
        if not (0 <= number < count and (np.abs(slices - number) <= OFF_SLICE).all()):
            outside += 1
            continue
        mask[:, :, number] ^= inside(voxels[:, :2], (columns, rows))
    if outside and not mask.any():
        raise DataError("The RTSTRUCT's contours lie outside the CT; they belong to another examination.")
    return mask, outside
