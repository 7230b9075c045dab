"""Weighted mean of adapter states, part by part over the centers that trained the part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from common.orders import State


@dataclass
class Update:
    """One center's contribution to a round."""

    center: str
    state: State
    weight: float


def mean(updates: Sequence[Update], *, start: State) -> State:
    """sum_i w_i x_i / sum_i w_i per tensor, over the updates that carry it; untouched where none does.

    Computed in float64 in the order of the center's code, so neither reply order nor worker count changes a bit; one
    update alone is returned exactly.
    """
    ordered = sorted(updates, key=lambda update: update.center)
    return {name: _mean_tensor(name, ordered, tensor) for name, tensor in start.items()}


def _mean_tensor(name: str, updates: Sequence[Update], start: torch.Tensor) -> torch.Tensor:
    carrying = [update for update in updates if name in update.state and update.weight > 0]
    if not carrying:
        return start
    if len(carrying) == 1:
        return carrying[0].state[name].clone()
    total = sum(update.weight for update in carrying)
    summed = torch.zeros(start.shape, dtype=torch.float64)
    for update in carrying:
        summed += update.weight * update.state[name].to(torch.float64)
    return (summed / total).to(start.dtype)


WEIGHTINGS = {
    "n": float,
    "sqrt": lambda cases: float(cases) ** 0.5,
    "uniform": lambda cases: 1.0 if cases > 0 else 0.0,
}
