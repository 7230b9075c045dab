"""The optimizer of local training, and a round's learning rate."""

from __future__ import annotations

import math

import torch

from common.config.options import SGD
from common.config.step import Step
from common.model.adapted import AdaptedModel


def optimizer_for(model: AdaptedModel, step: Step, round: int = 1) -> torch.optim.Optimizer:
    """Over the step's own trainable parameters, at the round's learning rate: AdamW (UNICON's optimiser), or plain
    gradient steps."""
    rate, decay = learning_rate(step, round), step.training.weight_decay
    if step.training.optimizer == SGD:
        return torch.optim.SGD(model.trainable_parameters(), lr=rate, weight_decay=decay)
    return torch.optim.AdamW(model.trainable_parameters(), lr=rate, weight_decay=decay)


def learning_rate(step: Step, round: int) -> float:
    """A round's learning rate; annealed it is lr (1 + cos(pi (round - 1) / rounds)) / 2, as PyTorch's CosineAnnealingLR
    with a step a round (Loshchilov & Hutter 2017, without restarts)."""
    if not step.training.anneal:
        return step.training.learning_rate
    done = min(max(round - 1, 0) / max(step.rounds, 1), 1.0)
    return step.training.learning_rate * (1 + math.cos(math.pi * done)) / 2
