"""Tidying: pieces of a segmentation's answer that the task's rules leave out, as background for certain.

The rules look at an answer alone, never at a label: of each structure the largest connected piece, or no piece below a
size. What is inside another structure belongs to the outer one's piece too.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.config.step import Step
from common.metrics.surface import pieces
from common.tasks import build_task
from common.tasks.segmentation import SURE


def has_rules(step: Step) -> bool:
    """Whether anything is left out of the step's answers."""
    task = step.task
    return task.kind == "segmentation" and (task.largest_component or task.smallest_ml > 0)


def tidied(output: Tensor, step: Step) -> Tensor:
    """Logits (B, 1 + S, D, H, W) with what the step's rules leave out made background."""
    if not has_rules(step):
        return output
    fewest = step.task.smallest_ml * 1000 / prod(step.view.spacing_mm)  # voxels
    task: Any = build_task(step.task)
    labels = output.argmax(dim=1).cpu().numpy()
    dropped = np.stack([_dropped(task.inside(one).values(), step.task.largest_component, fewest) for one in labels])
    sure = torch.full_like(output, -SURE)
    sure[:, 0] = SURE
    return torch.where(torch.from_numpy(dropped).to(output.device)[:, None], sure, output)


def _dropped(structures: Iterable[np.ndarray], only_largest: bool, fewest: float) -> np.ndarray:
    """bool (D, H, W): voxels in a piece of some structure that does not stay."""
    gone = []
    for inside in structures:
        labelled, count = pieces(inside)
        sizes = np.bincount(labelled.ravel(), minlength=count + 1)[1:]
        stays = sizes >= fewest
        if only_largest and count:
            stays &= np.arange(count) == sizes.argmax()
        gone.append(inside & ~np.concatenate([[True], stays])[labelled])
    return np.any(gone, axis=0)
