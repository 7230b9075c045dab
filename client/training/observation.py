"""Cases as a task or a linear part sees them: what is recorded of each one. Records stay on site.

A simulation's own process may read them; from a center only sums over enough cases leave.
"""

from __future__ import annotations

import numpy as np
import torch

from client.training.batches import Cases, item
from client.training.prediction import predict
from common.data.batch import Batch
from common.exact.columns import Rows
from common.exact.step import target_of
from common.model.adapted import AdaptedModel
from common.protocol.messages import Order
from common.tasks import Observation, Task


def observe(order: Order, model: AdaptedModel, task: Task, cases: Cases) -> list[tuple[Observation, float]]:
    """A record and a loss of each case that the order's mode can show (`Cases.having`), in order."""
    found = []
    for positions in cases.in_order(order.step.training.batch, only=cases.having(order.mode)):
        batch, features = item(order, cases, positions, model)
        with torch.no_grad():
            output = predict(model, batch, features=features, window=order.step.view.window)
            for row, observation in enumerate(task.observe(output, batch)):
                found.append((observation, float(task.loss(output[row : row + 1], _row(batch, row)))))
    return found


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
