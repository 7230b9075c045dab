"""Weighted mean of adapter states, part by part over the centers that trained the part.

FedAvg (McMahan et al. 2017): sum_i w_i x_i / sum_i w_i per tensor. Exact for everything that is linear in one trained
tensor; for LoRA's products see `server.aggregation.lowrank`. Sum-only: it never needs to see one update by itself.
Costs one float64 copy of the state, whatever the number of updates.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

import torch
from torch import Tensor

from common.adapters.lowrank import STACKED, lora_rule
from common.errors import AdapterError
from common.protocol.messages import State
from server.aggregation import lowrank
from server.aggregation.types import CHUNK, Aggregated, Setting, Update, canonical, check_shape, in_order


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
    averaged = by_blocks(updates, start=start, skip=lowrank.stacked_names(start, setting))
    state = {**start, **averaged}
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


def by_blocks(updates: Sequence[Update], *, start: State, skip: Iterable[str] = ()) -> State:
    """`means` in the start's dtypes, the same bits: small tensors side by side, large ones in pieces that a core's
    cache holds, so that no float64 copy of a state is ever made."""
    ordered, skipped = canonical(updates), frozenset(skip)
    made: State = {}
    for names, carriers in _alike(ordered, [name for name in start if name not in skipped], start):
        weights = [update.weight for update in carriers]
        flat = [_side_by_side([update.state[name] for name in names]) for update in carriers]
        found = torch.empty(len(flat[0]), dtype=start[names[0]].dtype)
        for first in range(0, len(found), CHUNK):
            block = _mean_of([row[first : first + CHUNK] for row in flat], weights)
            found[first : first + CHUNK] = block if found.is_floating_point() else block.round()
        sizes = [start[name].numel() for name in names]
        pieces = [found] if len(names) == 1 else [piece.clone() for piece in found.split(sizes)]
        made |= {name: piece.view(start[name].shape) for name, piece in zip(names, pieces, strict=True)}
    return {name: made[name] for name in start if name in made}


def _alike(updates: Sequence[Update], names: Sequence[str], start: State) -> list[tuple[list[str], list[Update]]]:
    """Names that can lie side by side: carried by the same updates in the same types; large tensors each by itself."""
    found: dict[Hashable, tuple[list[str], list[Update]]] = {}
    for name in names:
        carriers = [update for update in updates if name in update.state]
        if not carriers:
            continue
        for update in carriers:
            check_shape(update, name, start[name])
        kinds = (start[name].dtype, *((update.center, update.state[name].dtype) for update in carriers))
        key = name if start[name].numel() >= CHUNK else kinds
        found.setdefault(key, ([], carriers))[0].append(name)
    return list(found.values())


def _side_by_side(tensors: Sequence[Tensor]) -> Tensor:
    flat = [tensor.reshape(-1) for tensor in tensors]
    return flat[0] if len(flat) == 1 else torch.cat(flat)


def _mean_of(rows: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """sum_i w_i x_i / sum_i w_i in float64, as differences from the first."""
    first = rows[0].to(torch.float64)
    if len(rows) == 1:
        return first
    summed = (rows[1].to(torch.float64) - first).mul_(weights[1])
    for row, weight in zip(rows[2:], weights[2:], strict=True):
        summed.add_(row.to(torch.float64) - first, alpha=weight)  # a float64 row is the update itself: not in place
    return summed.div_(sum(weights)).add_(first)


def _as(like: Tensor, value: Tensor) -> Tensor:
    """Back in the start's dtype; a count (an integer tensor) is rounded."""
    return value.to(like.dtype) if like.is_floating_point() else value.round().to(like.dtype)
