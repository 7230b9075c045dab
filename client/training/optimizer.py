"""The optimizer of local training, and a round's learning rate."""

from __future__ import annotations

import math

import torch

from common.config.step import Step
from common.model.adapted import AdaptedModel


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
