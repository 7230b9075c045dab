"""The one local training loop: every task, adapter and method runs through `fit`."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from client.methods.drift import Correction
from common.backbones.base import Features
from common.config.step import Step
from common.config.training import Training
from common.data.batch import Batch
from common.model.adapted import AdaptedModel
from common.tasks import Task


@dataclass
class FitLog:
    """What a round of local training did, as sums."""

    loss: float = 0.0
    batches: int = 0
    cases: int = 0
    parts: set[str] = field(default_factory=set)  # that at least one batch reached and trained


Item = tuple[Batch, Features | None]


def optimizer_for(model: AdaptedModel, step: Step, round: int = 1) -> torch.optim.Optimizer:
    """AdamW over the step's own trainable parameters (UNICON's optimiser), at the round's learning rate."""
    rate, decay = learning_rate(step, round), step.training.weight_decay
    return torch.optim.AdamW(model.trainable_parameters(), lr=rate, weight_decay=decay)


def learning_rate(step: Step, round: int) -> float:
    """A round's learning rate; annealed it is lr (1 + cos(pi (round - 1) / rounds)) / 2, as PyTorch's CosineAnnealingLR
    with a step a round (Loshchilov & Hutter 2017, without restarts)."""
    if not step.training.anneal:
        return step.training.learning_rate
    done = min(max(round - 1, 0) / max(step.rounds, 1), 1.0)
    return step.training.learning_rate * (1 + math.cos(math.pi * done)) / 2


def fit(
    model: AdaptedModel,
    task: Task,
    *,
    batches: Iterable[Item],
    training: Training,
    optimizer: torch.optim.Optimizer,
    autocast: bool = False,
    correction: Correction | None = None,
) -> FitLog:
    """Train on the given batches once.

    Args:
        batches: pairs of a batch and, where the encoder is frozen, its precomputed features.
        optimizer: fresh each round in a federation; kept across epochs by the centralized baseline.
        correction: what the federation adds to each gradient (FedProx, SCAFFOLD, FedDyn), before clipping.
    """
    model.train()
    log, trained = FitLog(), model.trainable_parameters()
    for batch, features in batches:
        optimizer.zero_grad(set_to_none=True)
        loss = _loss(model, task, batch, features, autocast)
        loss.backward()
        log.parts |= _keep_reached(model, batch)
        if correction is not None:
            correction.apply({n: p for n, p in model.named_trainable_parameters().items() if p.grad is not None})
        if training.clip_norm > 0:
            torch.nn.utils.clip_grad_norm_(trained, training.clip_norm)
        optimizer.step()
        log.loss += float(loss.detach()) * len(batch)
        log.batches += 1
        log.cases += len(batch)
    model.eval()
    return log


def _keep_reached(model: AdaptedModel, batch: Batch) -> set[str]:
    """Drop the gradients of parts that no case of the batch reaches, and return the trained parts that one does.

    A gradient of exact zeros would still move a part: by the optimiser's momentum and weight decay.
    """
    found = model.reached_parts(batch.present) & model.trained_parts
    for name, parameter in model.named_trainable_parameters().items():
        if name.partition("/")[0] not in found:
            parameter.grad = None
    return found


def _loss(model: AdaptedModel, task: Task, batch: Batch, features: Features | None, autocast: bool) -> Tensor:
    device = next(iter(batch.inputs.values())).device.type
    with torch.autocast(device, dtype=torch.bfloat16, enabled=autocast):
        if features is None:
            features = model.encode(batch.inputs, batch.present)
        output = model.decode(features, batch.inputs, batch.present)
    return task.loss(output.float(), batch)
