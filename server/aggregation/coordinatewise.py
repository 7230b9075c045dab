"""Coordinate rules: the values of each coordinate are put in order, every center is one voice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from common.protocol.messages import State
from server.aggregation.types import CHUNK, Aggregated, Setting, Update
from server.aggregation.withstand import withstanding_groups

Pick = Callable[[list[Tensor], int], Tensor]
"""Of a coordinate's values in rising order and the number of faulty ones, the result."""


def median(updates: Sequence[Update], start: State, memory: State, setting: Setting) -> Aggregated:
    """Median of each coordinate (Yin et al., ICML 2018): of an even number, the mean of the two in the middle."""
    return _by_coordinate(updates, start, memory, setting, lambda values, f: _median(values))


def trimmed_mean(updates: Sequence[Update], start: State, memory: State, setting: Setting) -> Aggregated:
    """Mean of each coordinate without its f smallest and f largest values (Yin et al., ICML 2018)."""
    return _by_coordinate(updates, start, memory, setting, _middle_mean)


def _by_coordinate(
    updates: Sequence[Update],
    start: State,
    memory: State,
    setting: Setting,
    pick: Pick,
) -> Aggregated:
    whole = Aggregated(dict(start), dict(memory))
    for group in withstanding_groups(updates, start, setting, whole.notes):
        whole.state |= ordered(group.carriers, start, group.names, pick, group.faulty)
    return whole


def ordered(updates: Sequence[Update], start: State, names: Sequence[str], pick: Pick, faulty: int) -> State:
    """Each coordinate's values in rising order, and what the rule picks of them."""
    made: State = {}
    for name in names:
        flat = [update.state[name].reshape(-1) for update in updates]
        picked = torch.empty(flat[0].shape, dtype=start[name].dtype)
        for first in range(0, len(picked), CHUNK):
            values = [row[first : first + CHUNK] for row in flat]
            for low, high in exchanges(len(values)):
                values[low], values[high] = (
                    torch.minimum(values[low], values[high]),
                    torch.maximum(values[low], values[high]),
                )
            picked[first : first + CHUNK] = pick(values, faulty).to(picked.dtype)
        made[name] = picked.view(start[name].shape)
    return made


def exchanges(n: int) -> Iterator[tuple[int, int]]:
    """Batcher's merge exchange (Knuth, TAOCP 3, 5.2.2 M): pairs that, put in order one after another, sort n values.

    Elementwise minima and maxima of whole arrays are several times faster than sorting many columns of seven.
    """
    top = 1 << max(0, (n - 1).bit_length() - 1)
    p = top if n > 1 else 0
    while p:
        q, r, d = top, 0, p
        while True:
            yield from ((i, i + d) for i in range(n - d) if i & p == r)
            if q == p:
                break
            d, q, r = q - p, q // 2, p
        p //= 2


def _median(values: list[Tensor]) -> Tensor:
    low, high = values[(len(values) - 1) // 2], values[len(values) // 2]
    return low if len(values) % 2 else _mean([low, high])


def _middle_mean(values: list[Tensor], trim: int) -> Tensor:
    return _mean(values[trim : len(values) - trim])


def around_median(values: list[Tensor], faulty: int) -> Tensor:
    return _nearest_mean(values, len(values) - 2 * faulty)


def _nearest_mean(values: list[Tensor], count: int) -> Tensor:
    """Mean of the ``count`` values nearest to the median: they are neighbors, so a window decides."""
    middle, picked, least = _median(values).to(torch.float64), torch.empty(0), torch.empty(0)
    for first in range(len(values) - count + 1):
        window = values[first : first + count]
        reach = torch.maximum(middle - window[0], window[-1] - middle)
        nearer = reach < least if first else None
        picked = _mean(window) if nearer is None else torch.where(nearer, _mean(window), picked)
        least = reach if nearer is None else torch.minimum(reach, least)
    return picked


def _mean(values: Sequence[Tensor]) -> Tensor:
    """In float64, as differences from the first: equal values give exactly that value."""
    first = values[0].to(torch.float64)
    total = torch.zeros_like(first)
    for value in values[1:]:
        total += value - first
    return first + total / len(values)
