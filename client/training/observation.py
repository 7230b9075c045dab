"""Cases as a task or a linear part sees them: what is recorded of each one. Records stay on site.

A simulation's own process may read them; from a center only sums over enough cases leave.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from client.data.images.own_grid import OwnGrid, answer_on, moved, side_by_side
from client.training.batches import Cases, item
from client.training.prediction import answered
from common.config.options import CT_GRID
from common.data.batch import Batch
from common.exact.columns import Rows
from common.exact.step import target_of
from common.model.adapted import AdaptedModel
from common.protocol.messages import Order
from common.tasks import Observation, Task
from common.tasks.segmentation import KNOWN, Segmentation, of_known


def observe(order: Order, model: AdaptedModel, task: Task, cases: Cases) -> list[tuple[Observation, float]]:
    """A record and a loss of each case that the order's mode can show (`Cases.having`), in order.

    Test cases of a segmentation are compared where they were drawn (`view.score_on`); their loss, and cases that choose
    a round, stay on the view's grid.
    """
    found = []
    for positions in cases.in_order(order.step.training.batch, only=cases.having(order.mode)):
        batch, features = item(order, cases, positions, model)
        with torch.no_grad():
            output = answered(model, batch, order.step, features=features)
            records = task.observe(output, batch)
            for row, position in enumerate(positions):
                loss = float(task.loss(output[row : row + 1], _row(batch, row)))
                place = cases.own_grid(position) if is_scored_where_drawn(order) else None
                if place is not None and isinstance(task, Segmentation):
                    records[row] = compared(task, output[row].softmax(dim=0), place, mask=batch.target["mask"][row])
                    if KNOWN in batch.target:
                        records[row] = of_known(records[row], batch.target[KNOWN][row].cpu().numpy())
                found.append((records[row], loss))
    return found


def is_scored_where_drawn(order: Order) -> bool:
    """Whether the order asks for test cases of a segmentation on their own grid."""
    step = order.step
    return order.subset == "test" and step.task.kind == "segmentation" and step.view.score_on == CT_GRID


def compared(task: Segmentation, probabilities: Tensor, place: OwnGrid, *, mask: Tensor) -> Observation:
    """A case's record on the grid where it was drawn, over the whole image: what the model did not see is background.

    As HECKTOR does, the answer becomes a mask on the CT's grid and goes to the label's by nearest neighbor if that is
    another.

    Args:
        probabilities: (1 + S, D, H, W) on the view's grid.
        mask: (1, D, H, W) or (D, H, W), the label on the view's grid: the answer that is perfect there, whose score is
            the ceiling of every answer that is a mask there.
    """
    perfect = _certain(mask.cpu().numpy().reshape(mask.shape[-3:]), len(probabilities))
    answer, ceiling = (
        side_by_side(moved(answer_on(values, place.view, place.image), place.image, place.label), place.truth)
        for values in (probabilities.cpu().numpy(), perfect)
    )
    label = place.label
    found = task.compared(
        *answer, voxel_mm3=label.voxel_mm3, spacing_mm=label.spacing_mm, farthest_mm=place.image.diagonal_mm
    )
    return found | task.ceiling(*ceiling, voxel_mm3=label.voxel_mm3)


def _certain(mask: np.ndarray, channels: int) -> np.ndarray:
    """A label map (D, H, W) as probabilities (1 + S, D, H, W) of 0 and 1; what nobody drew is background."""
    return np.stack([~np.isin(mask, range(1, channels)), *(mask == place for place in range(1, channels))]).astype(
        np.float32
    )


def linear_rows(order: Order, model: AdaptedModel, cases: Cases) -> Rows:
    """The cases as the rows of a linear part."""
    parts = []
    for positions in cases.in_order(order.step.training.batch):
        batch, features = item(order, cases, positions, model)
        with torch.no_grad():
            features = model.encode(batch.inputs, batch.present) if features is None else features
            values, flags = model.columns(features, batch.inputs, batch.present)
        target = target_of(order.step, {name: tensor.cpu() for name, tensor in batch.target.items()})
        parts.append((values.cpu().numpy(), flags.cpu().numpy(), target))
    return Rows(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _row(batch: Batch, row: int) -> Batch:
    pick = slice(row, row + 1)
    return Batch(*({k: v[pick] for k, v in d.items()} for d in (batch.inputs, batch.present, batch.target)))
