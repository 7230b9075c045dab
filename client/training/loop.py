"""The one local training loop: every task, adapter and method runs through `fit`."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from client.training.batches import Item
from client.training.job import Job
from common.data.batch import Batch
from common.model.adapted import AdaptedModel
from common.seeding import seed_everything


@dataclass
class FitLog:
    """What a round of local training did, as sums."""

    loss: float = 0.0
    batches: int = 0
    cases: int = 0
    parts: set[str] = field(default_factory=set)  # that at least one batch reached and trained


def fit(job: Job) -> FitLog:
    """Train the job's model on its batches once. Who trained before in this process makes no difference."""
    seed_everything(job.seed)  # dropout draws from torch's global generator
    model, clip_norm = job.model, job.order.step.training.clip_norm
    model.train()
    log, trained = FitLog(), model.trainable_parameters()
    for batch, features in job.batches:
        job.optimizer.zero_grad(set_to_none=True)
        loss = _loss(job, (batch, features))
        loss.backward()
        log.parts |= _keep_reached(model, batch)
        for method in job.methods:
            method.gradient(_with_gradient(model))
        if clip_norm > 0:
            torch.nn.utils.clip_grad_norm_(trained, clip_norm)
        job.optimizer.step()
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


def _with_gradient(model: AdaptedModel) -> dict[str, nn.Parameter]:
    return {n: p for n, p in model.named_trainable_parameters().items() if p.grad is not None}


def _loss(job: Job, item: Item) -> Tensor:
    batch, features = item
    with torch.autocast(job.model.device.type, dtype=torch.bfloat16, enabled=job.autocast):
        if features is None:
            features = job.model.encode(batch.inputs, batch.present)
        output = job.model.decode(features, batch.inputs, batch.present)
    return job.task.loss(output.float(), batch)
