"""Boxes of structures: from masks, what grounding learns and is scored on; and from an answer, in mm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from common.metrics.detection import MOST_TRUTHS
from common.metrics.surface import pieces
from common.tasks.regions import Regions

if TYPE_CHECKING:
    from client.data.images.volumes import Prepared


def box_targets(mask: Tensor, *, structures: int, slices: bool) -> dict[str, Tensor]:
    """``boxes`` (16, 7), ``known`` (S,), ``size`` (3,) and ``slice`` (), as `common.tasks.grounding` describes them.

    Each connected piece of a structure (26 neighbors) is a box; beyond the 16 largest none is kept.

    Args:
        mask: (1, D, H, W) of 0 background, i structure i, 255 where nobody drew anything.
        slices: boxes in the axial slice where the structures are largest, one voxel thick; in the middle one of a case
            without any.
    """
    labels = mask[0].numpy()
    at = -1
    if slices:
        areas = ((labels > 0) & (labels <= structures)).sum(axis=(1, 2))
        at = int(areas.argmax()) if areas.any() else labels.shape[0] // 2
    found = [(place, box) for place in range(structures) for box in _boxes(labels == place + 1, at)]
    found.sort(key=lambda one: -_volume(one[1]))
    table = torch.full((MOST_TRUTHS, 7), -1.0)
    for row, (place, box) in enumerate(found[:MOST_TRUTHS]):
        table[row] = torch.tensor([place, *box], dtype=torch.float32)
    return {
        "boxes": table,
        "known": torch.ones(structures),
        "size": torch.tensor(labels.shape, dtype=torch.float32),
        "slice": torch.tensor(at),
    }


def found_boxes(task: Any, output: Tensor, prepared: Prepared) -> list[dict[str, Any]]:
    """What was found in one case, each with its structure, its probability and two opposite corners in mm (RAS).

    Args:
        task: `common.tasks.grounding.Grounding`.
        output: (S x L + sides, d, h, w).
    """
    size = list(next(iter(prepared.images.values())).shape[1:])
    at = size[0] // 2 if task.spec.slices else -1  # nobody has drawn anything that would choose a slice
    regions = Regions(output, size, structures=len(task.structures), sides=task.outputs, at=at)
    found = zip(*task.found(regions, range(len(task.structures))), strict=True)
    return [
        {
            "structure": task.structures[int(of)],
            "probability": round(float(score), 4),
            "corners_mm": [_world(box[corner].tolist(), prepared.affine) for corner in (slice(0, 3), slice(3, 6))],
        }
        for box, score, of in found
    ]


def _world(corner: list[float], affine: np.ndarray) -> list[float]:
    """mm of a corner (z, y, x) between voxels."""
    x, y, z = (side - 0.5 for side in reversed(corner))  # a voxel's middle has its number
    return [round(float(value), 2) for value in (affine @ [x, y, z, 1.0])[:3]]


def _boxes(mask: np.ndarray, at: int) -> list[tuple[int, ...]]:
    """(z0, y0, x0, z1, y1, x1) of each connected piece, half-open; in one slice where ``at`` is one."""
    if at >= 0:
        mask = mask[at : at + 1]
    low = max(at, 0)
    found = ndimage.find_objects(pieces(mask)[0])
    return [(z.start + low, y.start, x.start, z.stop + low, y.stop, x.stop) for z, y, x in found]


def _volume(box: tuple[int, ...]) -> int:
    return int(np.prod([high - low for low, high in zip(box[:3], box[3:], strict=True)]))
