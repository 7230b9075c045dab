"""Adam's moments over centers: their weighted mean, for the next round's orders (``training.moments=averaged``).

The server keeps one float64 tensor for each moment in its memory, which the checkpoint stores; a tensor that nobody
sends in a round keeps its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from common.protocol.declaration import MOMENT_MARKS
from common.protocol.messages import State
from server.aggregation.types import Update


def averaged(updates: Sequence[Update], memory: State) -> State:
    """The moments in the memory after a round; nothing where none travel."""
    sums: State = {}
    weights: dict[str, float] = {}
    for update in updates:
        for name in (name for name in update.extra if name.startswith(MOMENT_MARKS)):
            own = update.extra[name].to(torch.float64) * update.weight
            sums[name] = sums[name] + own if name in sums else own
            weights[name] = weights.get(name, 0.0) + update.weight
    earlier = {name: tensor for name, tensor in memory.items() if name.startswith(MOMENT_MARKS)}
    return earlier | {name: total / weights[name] for name, total in sums.items()}
