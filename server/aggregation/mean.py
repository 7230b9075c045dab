"""Weighted mean of adapter states, part by part over the centers that trained the part.

FedAvg (McMahan et al. 2017): sum_i w_i x_i / sum_i w_i per tensor. Exact for everything that is linear in one trained
tensor; for LoRA's products see `server.aggregation.lowrank`. Sum-only: it never needs to see one update by itself.
Costs one float64 copy of the state, whatever the number of updates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from common.adapters.lowrank import STACKED, lora_rule
from common.errors import AdapterError
from common.protocol.messages import State
from server.aggregation import lowrank
from server.aggregation.types import Aggregated, Setting, Update, canonical, check_shape, in_order

WEIGHTS: dict[str, Callable[[int], float]] = {  # by `common.config.options.WEIGHTINGS`
    "n": float,
    "sqrt": lambda cases: float(cases) ** 0.5,
    "uniform": lambda cases: 1.0 if cases > 0 else 0.0,
}


def average(updates: Iterable[Update], start: State, memory: State, setting: Setting) -> Aggregated:
    """The rule ``mean``: every part's mean, and for LoRA parts what their own rule makes of it.

    Updates may also be an iterator in canonical order: then memory does not grow with their number, and what LoRA's
    plain factors cost (which needs every pair of updates) is not reported.

    Raises:
        AdapterError: for an iterator where a LoRA part's rule stacks factors.
    """
    if isinstance(updates, Sequence):
        return combine(updates, start, setting, memory=memory)
    stacked = [name for name, spec in setting.parts.items() if spec.kind == "lora" and lora_rule(spec) in STACKED]
    if stacked:
        raise AdapterError(f"Part '{stacked[0]}' stacks factors, so its updates cannot be taken one at a time.")
    return Aggregated({**start, **mean(updates, start=start)}, dict(memory))


def combine(updates: Sequence[Update], start: State, setting: Setting, *, memory: State) -> Aggregated:
    """The weighted combination that the mean and every rule that only chooses weights end with."""
    averaged = means(updates, start=start, skip=lowrank.stacked_names(start, setting))
    state = {**start, **{name: _as(start[name], value) for name, value in averaged.items()}}
    made = lowrank.merge(updates, state, start, setting)
    return Aggregated({**state, **made.state}, dict(memory), made.report, made.notes)


def mean(updates: Iterable[Update], *, start: State) -> State:
    """sum_i w_i x_i / sum_i w_i per tensor, over the updates that carry it; untouched where none does.

    Computed in float64 in the order of the center's code, so neither reply order nor worker count changes a bit; one
    update alone, and updates that are all alike, are returned exactly.
    """
    averaged = means(updates, start=start)
    return {name: _as(tensor, averaged[name]) if name in averaged else tensor for name, tensor in start.items()}


def means(updates: Iterable[Update], *, start: State, skip: Iterable[str] = ()) -> State:
    """The same in float64, of the tensors that somebody carries and that are not to be skipped.

    The sum is of differences from the first update: equal updates then give exactly that update.
    """
    ordered = canonical(updates) if isinstance(updates, Sequence) else in_order(updates)
    skipped = frozenset(skip)
    first: State = {}
    sums: State = {}
    totals: dict[str, float] = {}
    for update in ordered:
        for name, tensor in update.state.items():
            if name in skipped:
                continue
            check_shape(update, name, start[name])
            if name not in first:
                first[name], totals[name] = tensor.to(torch.float64), update.weight
                continue
            difference = tensor.to(torch.float64) - first[name]
            sums[name] = (
                sums[name].add_(difference, alpha=update.weight) if name in sums else difference * update.weight
            )
            totals[name] += update.weight
    for name, summed in sums.items():
        first[name] = summed.div_(totals[name]).add_(first[name])
    return {name: first[name] for name in start if name in first}


def _as(like: Tensor, value: Tensor) -> Tensor:
    """Back in the start's dtype; a count (an integer tensor) is rounded."""
    return value.to(like.dtype) if like.is_floating_point() else value.round().to(like.dtype)
