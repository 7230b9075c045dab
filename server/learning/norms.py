"""How far an update is from its start, part by part: what the guards compare between centers."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from common.adapters.lowrank import Pair, pairs_of
from common.protocol.messages import State
from server.aggregation import factors
from server.aggregation.types import CHUNK

Squares = dict[str, dict[str, float]]  # center -> part -> squared length


def part_norms(states: Mapping[str, State], start: State, parts: Mapping[str, object]) -> dict[str, dict[str, float]]:
    """Center -> part -> Euclidean length of its change in float64; of a LoRA layer, the change of its effective weight.

    Centers that carry the same factors of a layer are looked at together.
    """
    squares: Squares = {center: {} for center in states}
    left = {center: dict(state) for center, state in states.items()}
    for pair in pairs_of(start, parts):
        for centers, own in _carriers(pair, left):
            for center, square in zip(centers, factors.effective_squares(pair, own, start), strict=True):
                _add(squares[center], pair.part, square)
    for center, state in left.items():
        for name, tensor in state.items():
            _add(squares[center], name.partition("/")[0], squared_distance(tensor, start[name]))
    return {c: {part: math.sqrt(square) for part, square in found.items()} for c, found in squares.items()}


def squared_distance(tensor: Tensor, start: Tensor) -> float:
    """Of two tensors, in float64, over pieces that a core's cache holds: a norm in float32 would be percent off."""
    a, b = tensor.reshape(-1), start.reshape(-1)
    total, room = 0.0, torch.empty(min(len(a), CHUNK), dtype=torch.float64)
    for first in range(0, len(a), CHUNK):
        change = a[first : first + CHUNK] - b[first : first + CHUNK]
        wide = room[: len(change)].copy_(change)
        total += float(wide.dot(wide))
    return total


def _carriers(pair: Pair, left: Mapping[str, State]) -> list[tuple[list[str], list[State]]]:
    """Centers that carry the same factors of a layer, with these factors, which are taken out of ``left``."""
    carried: dict[tuple[str, ...], dict[str, State]] = {}
    for center, state in left.items():
        own = {name: state.pop(name) for name in factors.effective_names(pair) if name in state}
        if own:
            carried.setdefault(tuple(own), {})[center] = own
    return [(list(found), list(found.values())) for found in carried.values()]


def _add(squares: dict[str, float], part: str, square: float) -> None:
    squares[part] = squares.get(part, 0.0) + square


def extra_norms(extra: State) -> dict[str, float]:
    """The length of what comes in addition to the state, as if it were one more part."""
    square = sum(float(t.double().square().sum()) for t in extra.values())
    return {"control": math.sqrt(square)} if extra else {}
