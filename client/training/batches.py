"""From prepared cases to what a step of the loop takes: a batch and, where the encoder is frozen, its features."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from client.data.case import Case
from client.data.images.own_grid import OwnGrid
from client.data.images.transforms import augment, drawn
from client.data.images.views import changed
from client.training.prediction import features_of
from common.backbones.base import Features
from common.data.batch import Batch, is_volume
from common.model.adapted import AdaptedModel
from common.protocol.messages import Order
from common.seeding import generator_for

Item = tuple[Batch, Features | None]


@dataclass(frozen=True)
class Turn:
    """A step of the optimizer on something else than a batch of the task, which a method puts between those.

    Args:
        loss: computes what is descended on, in the place of the task's loss and of what methods add to it. Tensors
            that it does not depend on stay where they are.
    """

    loss: Callable[[], Tensor]


class Cases(Protocol):
    """What training and scoring ask of prepared cases.

    `client.data.dataset.CaseSet` holds volumes; a simulation may hold features that were computed before.

    Attributes:
        cases: the cases in their order; positions are places in it.
        skipped: number of cases that were left out as unreadable.
    """

    cases: list[Case]
    skipped: int

    def __len__(self) -> int: ...

    def own_grid(self, position: int) -> OwnGrid | None:
        """Where the case was drawn, to score it there; None where there is no such place."""

    def having(self, mode: str) -> list[int]:
        """Positions of the cases that have every modality of a mode; of all cases for the empty mode."""

    def in_order(self, batch: int, *, only: Sequence[int] | None = None) -> Iterator[list[int]]:
        """Positions of every case (or of ``only`` these) once, in order."""

    def shuffled(self, batch: int, *, generator: torch.Generator) -> Iterator[list[int]]:
        """Positions of every case once, shuffled."""

    def collate(self, positions: Sequence[int], *, generator: torch.Generator | None = None) -> Batch:
        """The cases at these positions as one batch; with a generator, a random window of larger volumes."""

    def kept_features(self, key: str) -> dict[int, Features]:
        """Frozen features by position, filled by whoever computes them."""


@dataclass(frozen=True)
class Batches:
    """The training batches of one round at one center; every pass over them yields the same.

    Args:
        order: names the seed, the step and the round that shuffle, crop, augment and draw.
        code: the center's, which does so too.
    """

    order: Order
    cases: Cases
    model: AdaptedModel
    code: str

    def __iter__(self) -> Iterator[Item]:
        order, step = self.order, self.order.step
        for epoch in range(step.training.epochs):
            generator = generator_for(order.seed, step.name, self.code, order.round, epoch)
            for positions in self.cases.shuffled(step.training.batch, generator=generator):
                yield one_batch(order, self.cases, positions, self.model, generator=generator)


def one_batch(
    order: Order, cases: Cases, positions: list[int], model: AdaptedModel, *, generator: torch.Generator
) -> Item:
    """The cases at these positions to train on: a random window of each case, in a drawn mode, augmented, as far as
    the step asks for it; else with their kept features."""
    training, view = order.step.training, order.step.view
    if not (training.augment or training.draw or training.views) and view.size == view.window:
        return item(order, cases, positions, model)
    batch = cases.collate(positions, generator=generator)
    batch = drawn(batch, training.draw, generator=generator)
    if training.augment:
        batch = augment(batch, generator=generator)
    batch = changed(batch, training.views, generator=generator)
    return batch.to(model.device), None


def item(order: Order, cases: Cases, positions: list[int], model: AdaptedModel) -> Item:
    """The cases at these positions, unchanged, with their frozen features where these can be computed once and kept."""
    batch = cases.collate(positions).to(model.device)
    batch = batch.in_mode(order.mode) if order.mode else batch
    whole = all(list(x.shape[2:]) == order.step.view.window for m, x in batch.inputs.items() if is_volume(m))
    if not (model.encoder_is_frozen and whole):
        return batch, None
    kept = cases.kept_features(f"{order.base}|{order.mode}|{model.encoder_key()}")
    return batch, features_of(model, batch, kept=kept, indices=positions)
