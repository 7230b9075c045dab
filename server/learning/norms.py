"""How far an update is from its start, part by part: what the guards compare between centers."""

from __future__ import annotations

import math
from collections.abc import Mapping

from common.adapters.lowrank import pairs_of
from common.protocol.messages import State
from server.aggregation import factors


def part_norms(state: State, start: State, parts: Mapping[str, object]) -> dict[str, float]:
    """Part -> Euclidean length of its change in float64; of a LoRA layer, the change of its effective weight."""
    squares: dict[str, float] = {}
    left = dict(state)
    for pair in pairs_of(start, parts):
        own = {name: left.pop(name) for name in factors.effective_names(pair) if name in left}
        if own:
            squared = float(factors.effective_gram(pair, [own], start)[0, 0])
            squares[pair.part] = squares.get(pair.part, 0.0) + max(squared, 0.0)
    for name, tensor in left.items():
        change = (tensor - start[name]).reshape(-1).double()
        part = name.partition("/")[0]
        squares[part] = squares.get(part, 0.0) + float(change.dot(change))
    return {part: math.sqrt(square) for part, square in squares.items()}


def extra_norms(extra: State) -> dict[str, float]:
    """The length of what comes in addition to the state, as if it were one more part."""
    square = sum(float(t.double().square().sum()) for t in extra.values())
    return {"control": math.sqrt(square)} if extra else {}
