"""From one region's contours to a mask on a scan's grid, and what of them was not drawn.

A voxel belongs to a region where its center lies inside an odd number of the contours of its slice (even-odd rule), so
that a ring drawn as two contours, or with a keyhole, has its hole. A contour that is stored twice counts once: by the
rule it would cancel itself out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import nibabel as nib
import numpy as np
from pydicom.dataset import Dataset

from client.dicom.values import ODD, number, text, value_of
from client.dicom.volume import DicomVolume
from common.errors import DataError

CLOSED = ("CLOSEDPLANAR", "CLOSEDPLANARXOR", "INTERPOLATEDPLANAR")  # without their underscores
OFF_SLICE = 0.5  # of the slice distance: a contour farther than this from any slice is on none
ONE_PLANE = 0.02  # of the slice distance: contours closer than this are in one plane
SAME_POINT = 3  # decimals of a voxel
SAME_AREA = 0.01  # two contours that fill the same voxels and differ by less are one, written twice
ON_CENTER = 0.01  # of a voxel: an edge closer than this to a voxel's center runs through it
TELLING = 0.15  # of the contours' volume: a label that differs by more is told
EDGE_TELLING = 0.05  # of the label's volume: what voxels on a contour must make up to be told
HALF, WITH, WITHOUT = "half", "inside", "outside"
EDGES = (HALF, WITH, WITHOUT)


@dataclass
class Filled:
    """A region's mask, the volumes that go with it, and sentences about what is not in it (without a subject).

    Args:
        held_mm3: what the contours enclose, by their own corners.
        edge_mm3: of the voxels whose centers lie on a contour, if all of them counted, and if none did.
        contours: how many the region has, of any kind.
    """

    mask: np.ndarray
    held_mm3: float = 0.0
    edge_mm3: tuple[float, float] = (0.0, 0.0)
    contours: int = 0
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Contour:
    points: np.ndarray  # (n, 2) voxels (i, j)
    plane: float  # in slices


def fill(contours: Sequence[Dataset], scan: DicomVolume, *, edges: str = HALF) -> Filled:
    """Draw one region.

    Args:
        edges: of voxels whose center lies on a contour: ``half`` counts those on the edges to their right only, so
            that two regions which share an edge never both hold it; ``inside`` all, ``outside`` none.

    Raises:
        DataError: points are no numbers, a contour is not in the scan's planes, or all lie outside the scan.
    """
    columns, rows, count = scan.data.shape
    filled = Filled(np.zeros((columns, rows, count), dtype=bool), contours=len(contours))
    left = Counter[str]()
    by_slice: dict[int, list[_Contour]] = {}
    for contour in _closed(contours, np.linalg.inv(scan.affine), left):
        where = int(np.rint(contour.plane))
        if 0 <= where < count and abs(contour.plane - where) <= OFF_SLICE:
            by_slice.setdefault(where, []).append(contour)
        else:
            left["lie outside the CT and were left out"] += 1
    voxel = float(abs(np.linalg.det(scan.affine[:3, :3])))
    both = np.zeros(2)
    for where, there in by_slice.items():
        drawn = _once(_nearest_plane(there, where, left), (columns, rows), left)
        odd, edge = _even_odd(drawn, (columns, rows), left)
        filled.mask[:, :, where] = {HALF: odd, WITH: odd | edge, WITHOUT: odd & ~edge}[edges]
        filled.held_mm3 += _area([c.points for c in drawn]) * voxel
        both += [(odd | edge).sum() * voxel, (odd & ~edge).sum() * voxel]
    filled.edge_mm3 = (float(both[0]), float(both[1]))
    if left["lie outside the CT and were left out"] and not by_slice:
        raise DataError("The RTSTRUCT's contours lie outside the CT; they belong to another examination.")
    filled.notes = [f"{n} contours {what}" for what, n in sorted(left.items()) if n] + _gaps(sorted(by_slice))
    return filled


def differences(filled: Filled, scan: DicomVolume) -> list[str]:
    """Where the label is not what the contours hold, or hangs on the voxels that they run through; in milliliters."""
    label = float(filled.mask.sum()) * float(abs(np.linalg.det(scan.affine[:3, :3])))
    if label == 0:
        return []
    notes = []
    if abs(label - filled.held_mm3) > TELLING * filled.held_mm3:
        notes.append(f"the contours hold {filled.held_mm3 / 1000:.2f} ml, the label {label / 1000:.2f} ml")
    with_all, without = filled.edge_mm3
    if with_all - without > EDGE_TELLING * label:
        notes.append(
            f"the contours run through voxel centers: {label / 1000:.2f} ml, {with_all / 1000:.2f} ml with all of "
            f"these voxels and {without / 1000:.2f} ml with none (--edge-voxels)"
        )
    return notes


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


def on_edge(polygon: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """bool ``shape``: pixel centers that an edge of the polygon runs through."""
    mask = np.zeros(shape, dtype=bool)
    for a, b in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        low = np.maximum(np.floor(np.minimum(a, b)).astype(int), 0)
        high = np.minimum(np.ceil(np.maximum(a, b)).astype(int) + 1, shape)
        if (low >= high).any():
            continue
        centers = np.stack(np.meshgrid(*map(np.arange, low, high), indexing="ij"), axis=-1)
        along = b - a
        t = np.clip(((centers - a) @ along) / max(float(along @ along), 1e-12), 0.0, 1.0)
        near = np.linalg.norm(centers - (a + t[..., None] * along), axis=-1) < ON_CENTER
        mask[low[0] : high[0], low[1] : high[1]] |= near
    return mask


# ---------------------------------------------------------------------------------------------------------- reading


def _closed(contours: Sequence[Dataset], to_voxel: np.ndarray, left: Counter[str]) -> Iterator[_Contour]:
    """The closed contours in voxels; what is not one is counted."""
    for one in contours:
        kind = text(one, "ContourGeometricType").upper()
        points = _points(one)
        if len(points) == 0:
            left["hold no points"] += 1
        elif kind.replace("_", "") not in CLOSED:
            left[f"are of the type {kind or 'not named'}, which encloses nothing, and were not drawn"] += 1
        elif len(points) < 3:
            left["have fewer than three points and were not drawn"] += 1
        else:
            declared = number(one, "NumberOfContourPoints")
            if declared is not None and declared != len(points):
                left["have another number of points than they say"] += 1
            voxels = np.round(nib.affines.apply_affine(to_voxel, points), 5)
            if np.ptp(voxels[:, 2]) > OFF_SLICE:
                raise DataError("The RTSTRUCT's contours are not in the planes of the CT; export it with its own CT.")
            yield _Contour(voxels[:, :2], float(voxels[:, 2].mean()))


def _points(one: Dataset) -> np.ndarray:
    """(n, 3) in mm; empty where there are none. Raises DataError where they are no triples of numbers."""
    value = value_of(one, "ContourData")
    try:
        points = np.array([] if value is None else [float(v) for v in value])
        points = points.reshape(-1, 3)
    except ODD as error:
        raise DataError("A contour's points are no triples of numbers; export the RTSTRUCT again.") from error
    if not np.isfinite(points).all():
        raise DataError("A contour's points are no triples of numbers; export the RTSTRUCT again.")
    return points


def _nearest_plane(there: Sequence[_Contour], where: int, left: Counter[str]) -> list[_Contour]:
    """Of contours in several planes that lie closest to one slice, those of the nearest plane."""
    nearest = min(there, key=lambda c: abs(c.plane - where)).plane
    kept = [c for c in there if abs(c.plane - nearest) <= ONE_PLANE]
    left["lie between the CT's slices, beside one on the slice, and were left out"] += len(there) - len(kept)
    return kept


def _once(contours: Sequence[_Contour], shape: tuple[int, int], left: Counter[str]) -> list[_Contour]:
    """Each contour once, whatever point it begins at and whichever way it runs."""
    kept: list[_Contour] = []
    for one in contours:
        if any(_is_same(one.points, other.points, shape) for other in kept):
            left["are stored twice and count once"] += 1
        else:
            kept.append(one)
    return kept


def _is_same(a: np.ndarray, b: np.ndarray, shape: tuple[int, int]) -> bool:
    if {*map(tuple, np.round(a, SAME_POINT))} == {*map(tuple, np.round(b, SAME_POINT))}:
        return True
    mask, area, other = inside(a, shape), _shoelace(a), _shoelace(b)
    return bool(
        abs(area - other) <= SAME_AREA * max(area, other) and mask.any() and np.array_equal(mask, inside(b, shape))
    )


# ---------------------------------------------------------------------------------------------------------- drawing


def _even_odd(
    contours: Sequence[_Contour], shape: tuple[int, int], left: Counter[str]
) -> tuple[np.ndarray, np.ndarray]:
    """What an odd number of contours holds, and the centers that an edge runs through."""
    odd, edge = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
    masks: list[np.ndarray] = []
    for one in contours:
        mask = inside(one.points, shape)
        common = [(mask & other, other) for other in masks]
        if any(both.any() and not (both == mask).all() and not (both == other).all() for both, other in common):
            left["overlap another in part; what both hold counts as outside"] += 1
        masks.append(mask)
        odd ^= mask
        edge |= on_edge(one.points, shape)
    return odd, edge


def _area(polygons: Sequence[np.ndarray]) -> float:
    """Pixels that the polygons enclose by the even-odd rule, from their corners: a hole's area is taken away."""
    total = 0.0
    for i, polygon in enumerate(polygons):
        depth = sum(_holds(other, polygon[0]) for j, other in enumerate(polygons) if j != i)
        total += (-1) ** depth * _shoelace(polygon)
    return total


def _shoelace(polygon: np.ndarray) -> float:
    x, y = polygon.T
    return abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))) / 2


def _holds(polygon: np.ndarray, point: np.ndarray) -> bool:
    x, y = point
    odd = False
    for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        if (y0 > y) != (y1 > y) and x < (x1 - x0) * (y - y0) / (y1 - y0) + x0:
            odd = not odd
    return odd


def _gaps(slices: Sequence[int]) -> list[str]:
    span = slices[-1] - slices[0] + 1 if slices else 0
    missing = span - len(slices)
    return [f"{missing} of the {span} slices between the first and the last contour have none"] if missing else []
