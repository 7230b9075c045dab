"""Kept: the state that a step keeps, with the patients that it was trained on, for what methods sum at its end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from client.training.batches import Cases, item
from common.backbones.base import Features
from common.data.batch import Batch
from common.model.adapted import AdaptedModel
from common.protocol.messages import Order, Sums
from common.seeding import generator_for
from common.tasks import Task

if TYPE_CHECKING:
    from client.methods.base import Method


@dataclass(frozen=True)
class Kept:
    """What a method may look at when a step ends.

    Args:
        order: with the state that the step keeps.
        code: the center's.
        model: loaded with it, in evaluation mode, gradients switched on for whatever any round trains.
        cases: what is summed over, prepared.
        minimum: the fewest patients that any number of a sum may be of.
    """

    order: Order
    code: str
    model: AdaptedModel
    task: Task
    cases: Cases
    minimum: int = 1

    def one_by_one(self) -> Iterator[tuple[Batch, Features | None]]:
        """Each patient as a batch of one, not augmented; of a volume larger than the window, one fixed window."""
        order, view = self.order, self.order.step.view
        generator = generator_for(order.seed, order.step.name, self.code, "kept")
        for position in range(len(self.cases)):
            if view.size == view.window:
                yield item(order, self.cases, [position], self.model)
            else:
                yield self.cases.collate([position], generator=generator).to(self.model.device), None

    def few(self, patients: Tensor) -> Tensor:
        """Where a number is of somebody, but of fewer than the minimum."""
        return (patients > 0) & (patients < self.minimum)

    def apart(self, patients: Tensor) -> Tensor:
        """Where a number is of a few, or of all but a few: what is left of its neighbors would be theirs."""
        return self.few(patients) | self.few(len(self.cases) - patients)

    def told(self, total: Tensor, patients: Tensor) -> Tensor:
        """A sum with zeros where a few have a part in a number, or all but a few. A weight of a variable
        that one patient has recorded moves by that patient alone.

        Args:
            patients: how many have a part in each number.
        """
        return torch.where(self.apart(patients), torch.zeros_like(total), total)


def squared_gradients(kept: Kept, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Name -> the sum over patients of each one's squared gradient of -log p(label | case), float64.

    Squares of single patients: those of a batch's mean would be smaller by about the batch's size. The label is the
    patient's own (the empirical Fisher), the model in evaluation mode, and no method's penalty is in the loss. A number
    that a few patients have a part in is zero (`Kept.told`).
    """
    wanted = set(names)
    named = {n: p for n, p in kept.model.named_trainable_parameters().items() if n in wanted}
    if not named:
        return {}
    sums = {name: torch.zeros_like(parameter, dtype=torch.float64) for name, parameter in named.items()}
    patients = {name: torch.zeros_like(parameter, dtype=torch.int32) for name, parameter in named.items()}
    for batch, features in kept.one_by_one():
        for name, gradient in zip(named, _gradients(kept, batch, features, list(named.values())), strict=True):
            if gradient is not None:
                sums[name] += gradient.double().square()
                patients[name] += gradient != 0
    return {name: kept.told(total, patients[name]).cpu().numpy() for name, total in sums.items()}


def _gradients(
    kept: Kept, batch: Batch, features: Features | None, parameters: list[torch.nn.Parameter]
) -> tuple[Tensor | None, ...]:
    model = kept.model
    if features is None:
        features = model.encode(batch.inputs, batch.present)
    output = model.decode(features, batch.inputs, batch.present)
    loss = kept.task.likelihood_loss(output.float(), batch)
    return torch.autograd.grad(loss, parameters, allow_unused=True)


def kept_sums(kept: Kept, methods: Iterable[Method]) -> Sums:
    """What methods sum, with how many patients it is of; nothing where none asks."""
    sums: Sums = {}
    for method in methods:
        sums |= method.keepsake(kept)
    return {**sums, "fit.cases": np.array(float(len(kept.cases)))} if sums else {}
