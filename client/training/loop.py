"""The one local training loop: every task, adapter and method runs through `fit`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from client.training.batches import Item, Turn
from client.training.deep import supervised
from client.training.job import Answer, Job, Learned
from common.data.batch import Batch
from common.model.adapted import AdaptedModel
from common.seeding import seed_everything

if TYPE_CHECKING:
    from client.methods.base import Method


@dataclass
class FitLog:
    """What a round of local training did, as sums."""

    loss: float = 0.0
    batches: int = 0
    cases: int = 0
    parts: set[str] = field(default_factory=set)  # that at least one batch reached and trained

    def add(self, learned: Learned) -> None:
        """One step of the optimizer more."""
        self.loss += learned.loss
        self.cases += learned.cases
        self.batches += 1
        self.parts |= learned.parts


def fit(job: Job) -> FitLog:
    """Train the job's model on its batches once. Who trained before in this process makes no difference."""
    seed_everything(job.seed)  # dropout draws from torch's global generator
    model, clip_norm = job.model, job.order.step.training.clip_norm
    model.train()
    log, trained = FitLog(), model.trainable_parameters()
    for item in _stream(job):
        job.optimizer.zero_grad(set_to_none=True)
        if job.noise is not None:  # a draw of patients; a turn of a method's own has no place in it
            log.add(job.noise.learn(job, item, learn))
        elif isinstance(item, Turn):
            _take(job, item)
        else:
            log.add(learn(job, item))
        for method in job.methods:
            _add_penalty(method, model)
            method.gradient(_with_gradient(model))
        if clip_norm > 0 and job.noise is None:  # under noise each patient's was clipped, and the sum is mostly noise
            torch.nn.utils.clip_grad_norm_(trained, clip_norm)
        _step(job)
    model.eval()
    return log


def learn(job: Job, item: Item) -> Learned:
    """Leave on the model the gradients of one batch: of the task's loss and of what methods add to it."""
    batch = item[0]
    answer = _answer(job, item)
    loss = supervised(job.task, job.model.deeper_answers(), batch, job.task.loss(answer.output, batch))
    _with_methods(job, answer, loss).backward()
    return Learned(float(loss.detach()) * len(batch), len(batch), _keep_reached(job.model, batch))


def _take(job: Job, turn: Turn) -> None:
    """The gradients of a method's turn, which counts among neither batches nor cases."""
    with torch.autocast(job.model.device.type, dtype=torch.bfloat16, enabled=job.autocast):
        loss = turn.loss()
    loss.backward()


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


def _stream(job: Job) -> Iterable[Item | Turn]:
    """The job's batches, as each method hands them on."""
    stream: Iterable[Item | Turn] = job.batches
    for method in job.methods:
        stream = method.batches(stream)
    return stream


def _with_methods(job: Job, answer: Answer, loss: Tensor) -> Tensor:
    """The task's loss, unless a method takes its place, and what methods add to it."""
    if any(method.replaces_task for method in job.methods):
        loss = torch.zeros_like(loss)
    for method in job.methods:
        added = method.loss(answer)
        loss = loss if added is None else loss + added
    return loss


def _add_penalty(method: Method, model: AdaptedModel) -> None:
    """A penalty's gradient, added to those that the backward pass left."""
    value = method.penalty(model)
    if value is None:
        return
    named = list(_with_gradient(model).values())
    if not named:  # a batch may reach no part at all
        return
    for parameter, found in zip(named, torch.autograd.grad(value, named, allow_unused=True), strict=True):
        if found is not None and parameter.grad is not None:
            parameter.grad += found


def _step(job: Job) -> None:
    """The optimizer's step, and what methods make of it."""
    watching = [method for method in job.methods if method.changes_steps]
    named = _with_gradient(job.model) if watching else {}
    before = {name: parameter.detach().clone() for name, parameter in named.items()}
    job.optimizer.step()
    with torch.no_grad():
        for method in watching:
            method.step(named, before)


def _answer(job: Job, item: Item) -> Answer:
    batch, features = item
    with torch.autocast(job.model.device.type, dtype=torch.bfloat16, enabled=job.autocast):
        if features is None:
            features = job.model.encode(batch.inputs, batch.present)
        output = job.model.decode(features, batch.inputs, batch.present)
    return Answer(job.model, batch, features, output.float())
