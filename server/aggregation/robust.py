"""Rules that some centers may try to mislead: each says how many (f) it withstands, and refuses fewer than it needs.

Two families. *Coordinate rules* (median, trimmed mean, Bulyan's last step) order the values of each coordinate; every
center is one voice. *Geometric rules* need only the inner products of the updates' differences from the start, an
n x n matrix: they choose weights for the updates and for the start, and the weighted combination is then made as the
mean is, LoRA's own rule included. Inner products are taken in float64; a LoRA pair counts by its effective weight
B_i A_i - B_0 A_0, so that a factor's gauge does not matter and nothing can hide in the product (FEDERATION.md 1 and 4).

| rule | n at least | withstands f by |
|---|---|---|
| median, geometric_median, trimmed_mean | 2 f + 1 | a majority |
| norm_clip, centered_clip | 2 f + 1 (their length is a median) | bounded influence: the bias grows with f / n |
| krum, multi_krum | 2 f + 3 | leaving updates out |
| bulyan | 4 f + 3 | both |

A center that the guards stopped, now or for good, may have been one of the f: where too few updates are left for f, the
rule withstands as many as their number allows, f less the stopped ones at the least. Where there are enough it
withstands f, because the stopped center may as well have been an honest one. All this counts the updates that carry a
part (centers without PET): a part that too few carry stays as it was, and the round is void where no part is left.

None can be combined with secure sums: all look at single updates. No bytes beyond the mean's.
"""

from __future__ import annotations

from collections.abc import Sequence

from common.protocol.messages import State
from server.aggregation.coordinatewise import around_median, median, ordered, trimmed_mean
from server.aggregation.geometric import (
    centered_clip,
    geometric_median,
    gram,
    krum,
    multi_krum,
    norm_clip,
    repeated_krum,
    squared_distances,
)
from server.aggregation.types import Aggregated, Setting, Update
from server.aggregation.withstand import withstanding_groups

__all__ = [
    "bulyan",
    "centered_clip",
    "geometric_median",
    "krum",
    "median",
    "multi_krum",
    "norm_clip",
    "trimmed_mean",
]


def bulyan(updates: Sequence[Update], start: State, memory: State, setting: Setting) -> Aggregated:
    """Bulyan (El Mhamdi et al., ICML 2018): t = n - 2 f updates by repeated Krum, then, for each coordinate, the mean
    of the t - 2 f values nearest to their median."""
    whole = Aggregated(dict(start), dict(memory))
    for group in withstanding_groups(updates, start, setting, whole.notes):
        names, carriers, faulty = group.names, group.carriers, group.faulty
        chosen = repeated_krum(
            squared_distances(gram(carriers, start, names, setting)), faulty, len(carriers) - 2 * faulty
        )
        kept = [carriers[i] for i in chosen]
        whole.report |= {f"{u.center}.chosen": float(i in chosen) for i, u in enumerate(carriers)}
        whole.state |= ordered(kept, start, names, around_median, faulty)
    return whole
