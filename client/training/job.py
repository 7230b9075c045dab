"""Job: one round of local training, ready to run. `prepare` makes it, `client.training.loop.fit` runs it.

A center prepares a job from an order and settles it as a reply (`client.center.center`). Whoever trains without
messages (a pooled baseline, a table of models on cached features) prepares the same job from cases of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from client.training.batches import Batches, Cases, Item
from client.training.optimizer import optimizer_for
from common.backbones.base import Features
from common.config.step import Step
from common.data.batch import Batch
from common.model.adapted import AdaptedModel
from common.protocol.messages import Order
from common.seeding import seed_for
from common.tasks import Task

if TYPE_CHECKING:
    from client.methods.base import Method


class Stages(Protocol):
    """Finished steps in a center's vault, by the keys that an order names."""

    def step(self, key: str) -> Step:
        """What the step was. Raises BaseMissing for one that was not sent."""

    def model(self, key: str) -> AdaptedModel:
        """The step's model on the base that it stood on, in evaluation mode. Raises BaseMissing."""


@dataclass(frozen=True)
class Answer:
    """What the model says of one batch, as a method's loss may look at it.

    Args:
        features: of the encoder, adapted as far as the model is.
        output: the task's, float32, with its gradient.
    """

    model: AdaptedModel
    batch: Batch
    features: Features
    output: Tensor


@dataclass(frozen=True)
class Learned:
    """What the gradients that a model now has were made of, as far as it may be told.

    Args:
        loss: summed over the cases.
        parts: that train and that a case reached.
    """

    loss: float = 0.0
    cases: int = 0
    parts: set[str] = field(default_factory=set)


class Noise(Protocol):
    """What stands between patients and the gradients that a step of the optimizer sees (`client.privacy.dp_sgd`)."""

    @property
    def counts(self) -> dict[str, int]:
        """What may be told of a round, ``cases`` and ``batches``: public numbers."""

    def batches(self, order: Order, cases: Cases, model: AdaptedModel) -> Iterable[Any]:
        """What the loop takes in the place of batches: draws of patients."""

    def learn(self, job: Job, draw: Any, learn: Callable[[Job, Item], Learned]) -> Learned:
        """Leave a draw's gradients on the model, made noisy, by ``learn``, which leaves those of one batch."""


@dataclass
class Job:
    """Everything that one round of the local loop needs.

    Args:
        order: with the whole state that the round starts from.
        code: the center's.
        model: loaded with that state, on its device, its gradients switched for the round.
        cases: what is trained on, prepared.
        batches: of these cases, in the round's order; a method may add others.
        optimizer: over the model's trainable parameters.
        seed: of the job's own randomness (dropout): seed of the run, step, center and round, nothing else.
        methods: what the federation asks for beside the task's loss, in the order in which it acts.
        autocast: compute the forward pass in bfloat16.
        another: makes a second model of the step, for a method that compares this one with it.
        stages: finished steps that the coordinator sent, for a method that is taught by one of them.
        others: this center's training cases as another step sees them, prepared, for a method that rehearses it.
        noise: where the step asks for privacy: ``batches`` are then its draws of patients.
    """

    order: Order
    code: str
    model: AdaptedModel
    task: Task
    cases: Cases
    batches: Iterable[Item]
    optimizer: torch.optim.Optimizer
    seed: int
    methods: Sequence[Method] = ()
    autocast: bool = False
    another: Callable[[], AdaptedModel] | None = None
    others: Callable[[Step], Cases] | None = None
    noise: Noise | None = None
    stages: Stages | None = None


def prepare(
    order: Order,
    model: AdaptedModel,
    task: Task,
    cases: Cases,
    *,
    code: str,
    optimizer: torch.optim.Optimizer | None = None,
    methods: Sequence[Method] = (),
    autocast: bool = False,
    another: Callable[[], AdaptedModel] | None = None,
    others: Callable[[Step], Cases] | None = None,
    noise: Noise | None = None,
    stages: Stages | None = None,
) -> Job:
    """The order's round over these cases, its methods begun.

    Args:
        model: loaded, with gradients switched (`AdaptedModel.train_in_round`): its parameters are what is trained.
        optimizer: kept across rounds by a centralized baseline; a fresh one at the round's learning rate where absent.
    """
    job = Job(
        order=order,
        code=code,
        model=model,
        task=task,
        cases=cases,
        batches=Batches(order, cases, model, code) if noise is None else noise.batches(order, cases, model),
        optimizer=optimizer or optimizer_for(model, order.step, order.round),
        seed=seed_for(order.seed, order.step.name, code, order.round),
        methods=methods,
        autocast=autocast,
        another=another,
        others=others,
        noise=noise,
        stages=stages,
    )
    for method in methods:
        method.begin(job)
    return job
