"""Distances between the surfaces of two masks in mm, and lesions found and missed.

Surfaces are MONAI's of half-voxel elements with their areas, as in DeepMind's surface-distance, which HECKTOR 2020 and
2021 used; MONAI's is kept up (0.1 of the other fails with numpy 2). The 95 % Hausdorff distance is the larger of both
directions' 95th percentiles, by area. Where one mask is empty there is no surface to measure to: libraries answer NaN,
infinity or an exception; here the structure is as far away as the image allows (BraTS's rule, its diagonal), and its
surfaces never meet. Both empty: nothing to score.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage

HD95_EDGES_MM = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0, 15.0, 20.0, 30.0, 50.0, 100.0)
HD95_CELLS = len(HD95_EDGES_MM) + 1  # the last: 100 mm and more, and whoever has a missed or a false structure
PERCENT = 0.95
LEAST_IOU = 0.3  # HECKTOR 2025: a lesion is found where intersection over union is above


class Surfaces(NamedTuple):
    """The 95 % Hausdorff distance in mm, and the share of both surfaces that lies within the tolerance of the other."""

    hd95_mm: float
    surface_dice: float


class Lesions(NamedTuple):
    """Lesions found, predicted where there is none, and missed."""

    found: int
    false: int
    missed: int


def surfaces(
    predicted: np.ndarray,
    truth: np.ndarray,
    *,
    spacing_mm: Sequence[float] | np.ndarray,
    tolerance_mm: float,
    farthest_mm: float,
) -> Surfaces | None:
    """Of two masks (x, y, z), bool; None where both are empty.

    Args:
        spacing_mm: of the voxels along x, y and z.
        farthest_mm: the image's diagonal: the distance of a structure that one of them lacks.
    """
    if not predicted.any() and not truth.any():
        return None
    if not (predicted.any() and truth.any()):
        return Surfaces(farthest_mm, 0.0)
    distances, areas = zip(*_elements(predicted, truth, spacing_mm), strict=True)
    near = sum(float(area[distance <= tolerance_mm].sum()) for distance, area in zip(distances, areas, strict=True))
    total = sum(float(area.sum()) for area in areas)
    far = max(_percentile(distance, area) for distance, area in zip(distances, areas, strict=True))
    return Surfaces(far, near / total)


def _elements(
    predicted: np.ndarray, truth: np.ndarray, spacing_mm: Sequence[float] | np.ndarray
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of the prediction's surface, then of the truth's: each element's distance to the other, and its area."""
    import torch
    from monai.metrics.utils import get_edge_surface_distance

    a, b = (torch.from_numpy(np.ascontiguousarray(mask)) for mask in (predicted, truth))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of MONAI's own conversions
        edges, distances, areas = get_edge_surface_distance(
            a, b, spacing=[float(mm) for mm in spacing_mm], use_subvoxels=True, symmetric=True
        )
    return [
        (np.asarray(distance, np.float64), np.asarray(area[edge], np.float64))
        for edge, distance, area in zip(edges, distances, areas, strict=True)
    ]


def _percentile(distance: np.ndarray, area: np.ndarray) -> float:
    """The smallest distance that 95 % of the area does not exceed."""
    order = np.argsort(distance, kind="stable")
    share = np.cumsum(area[order]) / area.sum()
    return float(distance[order][min(int(np.searchsorted(share, PERCENT - 1e-9)), len(order) - 1)])


def hd95_cell(hd95_mm: float) -> int:
    """The place of a distance among the histogram's cells: [0, 1), [1, 2), ..., 100 mm and more."""
    return int(np.searchsorted(HD95_EDGES_MM, hd95_mm, side="right"))


def median_between(counts: np.ndarray) -> tuple[float, float | None] | None:
    """The cells' bounds in mm that hold the median of the counted patients; above None where the last cell is open.

    Of an even number the median is taken as the upper of the two in the middle: no missed structure is averaged away.
    """
    total = float(np.sum(counts))
    if total <= 0:
        return None
    cell = int(np.searchsorted(np.cumsum(counts), total / 2, side="right"))
    cell = min(cell, len(counts) - 1)
    low = HD95_EDGES_MM[cell - 1] if cell else 0.0
    return low, (HD95_EDGES_MM[cell] if cell < len(HD95_EDGES_MM) else None)


def pieces(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """Connected pieces of a mask, numbered from 1, and how many: voxels that share a corner are one (26 neighbors)."""
    labels, count = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    return labels, count


def lesions(predicted: np.ndarray, truth: np.ndarray) -> Lesions:
    """Connected pieces (26 neighbors) of two masks, paired one to one, the largest overlap first, where intersection
    over union is above 0.3."""
    (a, n), (b, m) = pieces(predicted), pieces(truth)
    meeting = np.bincount((a.astype(np.int64) * (m + 1) + b).ravel(), minlength=(n + 1) * (m + 1)).reshape(n + 1, m + 1)
    sizes_a, sizes_b = meeting.sum(axis=1), meeting.sum(axis=0)
    both = meeting[1:, 1:]
    iou = both / np.maximum(sizes_a[1:, None] + sizes_b[None, 1:] - both, 1)
    found = 0
    while iou.size and iou.max() > LEAST_IOU:
        row, column = np.unravel_index(int(iou.argmax()), iou.shape)
        iou[row, :], iou[:, column], found = 0, 0, found + 1
    return Lesions(found, n - found, m - found)
