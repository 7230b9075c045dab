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

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.adapters.lowrank import pairs_of
from common.config.compatibility import BOUNDS, least_updates
from common.errors import TooFewUpdates
from common.protocol.messages import State
from server.aggregation import factors
from server.aggregation.mean import combine
from server.aggregation.types import Aggregated, Setting, Update, canonical, check_shape, groups

CHUNK = 1 << 16  # coordinates at a time: what a core's cache holds


def withstood(kind: str, faulty: int, *, updates: int, stopped: int = 0) -> int | None:
    """How many faulty ones of ``updates`` a rule withstands: ``faulty``, lowered as far as its bound requires and by at
    most the ``stopped`` centers; None where that is not far enough."""
    times, plus = BOUNDS[kind]
    most = (updates - plus) // times
    return min(faulty, most) if most >= _fewest_faulty(faulty, stopped) else None


def _fewest_faulty(faulty: int, stopped: int) -> int:
    return max(0, faulty - stopped)


# ------------------------------------------------------------------------------------------------- coordinate rules


def median(updates: Sequence[Update], start: State, memory: State, setting: Setting) -> Aggregated:
    """Median of each coordinate (Yin et al., ICML 2018): of an even number, the mean of the two in the middle."""
    return _by_coordinate(updates, start, memory, setting, lambda values, f: _median(values))


def trimmed_mean(updates: Sequence[Update], start: State, memory: State, setting: Setting) -> Aggregated:
    """Mean of each coordinate without its f smallest and f largest values (Yin et al., ICML 2018)."""
    return _by_coordinate(updates, start, memory, setting, _middle_mean)


def bulyan(updates: Sequence[Update], start: State, memory: State, setting: Setting) -> Aggregated:
    """Bulyan (El Mhamdi et al., ICML 2018): t = n - 2 f updates by repeated Krum, then, for each coordinate, the mean
    of the t - 2 f values nearest to their median."""
    whole = Aggregated(dict(start), dict(memory))
    for group in _groups(updates, start, setting, whole.notes):
        names, carriers, faulty = group.names, group.carriers, group.faulty
        chosen = _repeated_krum(_distances2(gram(carriers, start, names, setting)), faulty, len(carriers) - 2 * faulty)
        kept = [carriers[i] for i in chosen]
        whole.report |= {f"{u.center}.chosen": float(i in chosen) for i, u in enumerate(carriers)}
        whole.state |= _ordered(kept, start, names, _around_median, faulty)
    return whole


Pick = Callable[[list[Tensor], int], Tensor]
"""Of a coordinate's values in rising order and the number of faulty ones, the result."""


def _by_coordinate(
    updates: Sequence[Update],
    start: State,
    memory: State,
    setting: Setting,
    pick: Pick,
) -> Aggregated:
    whole = Aggregated(dict(start), dict(memory))
    for group in _groups(updates, start, setting, whole.notes):
        whole.state |= _ordered(group.carriers, start, group.names, pick, group.faulty)
    return whole


def _ordered(updates: Sequence[Update], start: State, names: Sequence[str], pick: Pick, faulty: int) -> State:
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


def _around_median(values: list[Tensor], faulty: int) -> Tensor:
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


# -------------------------------------------------------------------------------------------------- geometric rules


def geometric_median(updates: Sequence[Update], start: State, memory: State, setting: Setting) -> Aggregated:
    """RFA (Pillutla et al., IEEE TSP 2022): the point v of least sum w_i |x_i - v|, by the smoothed Weiszfeld
    iteration v <- sum b_i x_i / sum b_i with b_i = w_i / max(nu, |x_i - v|); nu is a share of the median distance."""
    smoothing = setting.federation.smoothing
    return _by_geometry(updates, start, memory, setting, lambda g, w, f: _weiszfeld(g, w, smoothing))


def norm_clip(updates: Sequence[Update], start: State, memory: State, setting: Setting) -> Aggregated:
    """Mean of x + (x_i - x) min(1, t / |x_i - x|) (Sun et al. 2019); t is the round's median length, or set."""
    bound = setting.federation.bound
    return _by_geometry(updates, start, memory, setting, lambda g, w, f: _clipped(g, w, bound, 1))


def centered_clip(updates: Sequence[Update], start: State, memory: State, setting: Setting) -> Aggregated:
    """Centered clipping (Karimireddy et al., ICML 2021): v <- v + sum w_i (x_i - v) min(1, t / |x_i - v|), from the
    start, a few times; t is the median distance in every iteration, or set."""
    spec = setting.federation
    return _by_geometry(updates, start, memory, setting, lambda g, w, f: _clipped(g, w, spec.bound, spec.iterations))


def krum(updates: Sequence[Update], start: State, memory: State, setting: Setting) -> Aggregated:
    """Krum (Blanchard et al., NeurIPS 2017): the update of least summed squared distance to its n - f - 2 nearest.

    It throws away what all others learned: 46 % of an update in FEDERATION.md's clean measurement. Never a default.
    """
    return _by_geometry(updates, start, memory, setting, lambda g, w, f: _chosen(_krum_scores(g, f), 1))


def multi_krum(updates: Sequence[Update], start: State, memory: State, setting: Setting) -> Aggregated:
    """Multi-Krum: the plain mean of the updates with the least scores, all but f unless ``keep`` says how many."""
    keep = setting.federation.keep
    return _by_geometry(
        updates, start, memory, setting, lambda g, w, f: _chosen(_krum_scores(g, f), keep or len(g) - f)
    )


def gram(updates: Sequence[Update], start: State, names: Sequence[str], setting: Setting) -> Tensor:
    """Inner products (n, n), float64, of the updates' differences from the start, over the tensors ``names``."""
    wanted = set(names)
    total = torch.zeros((len(updates), len(updates)), dtype=torch.float64)
    for pair in pairs_of(start, setting.parts):
        own = wanted & set(factors.effective_names(pair))
        if own:
            total += factors.effective_gram(pair, [{n: u.state[n] for n in own} for u in updates], start)
            wanted -= own
    for name in (name for name in names if name in wanted):
        flat = [update.state[name].reshape(-1) for update in updates]
        before = start[name].reshape(-1)
        for first in range(0, len(before), CHUNK):
            piece = slice(first, first + CHUNK)
            rows = torch.stack([row[piece] for row in flat]).to(torch.float64) - before[piece]
            total += rows @ rows.T
    return (total + total.T) / 2


Weigh = Callable[[Tensor, Tensor, int], Tensor]


def _by_geometry(updates: Sequence[Update], start: State, memory: State, setting: Setting, weigh: Weigh) -> Aggregated:
    """Weights from inner products, then the combination that the mean makes, the start taking part with the rest."""
    whole = Aggregated(dict(start), dict(memory))
    for group in _groups(updates, start, setting, whole.notes):
        names, carriers = group.names, group.carriers
        weights = torch.tensor([update.weight for update in carriers], dtype=torch.float64)
        found = weigh(gram(carriers, start, names, setting), weights / weights.sum(), group.faulty)
        members = [
            replace(update, state={name: update.state[name] for name in names}, weight=float(weight))
            for update, weight in zip(carriers, found, strict=True)
        ]
        rest = max(0.0, 1.0 - float(found.sum()))
        if rest > ROUNDING:
            members.append(Update(START, {name: start[name] for name in names}, rest))
        made = combine(members, start, setting, memory=memory)
        whole.state |= {name: value for name, value in made.state.items() if value is not start[name]}
        whole.report |= made.report | {f"{m.center}.weight": m.weight for m in members if m.center != START}
        whole.notes += [note for note in made.notes if note not in whole.notes]
    return whole


START = "\x7fstart"  # after every center's code
ROUNDING = 1e-12
WEISZFELD_STEPS = 1000


def _weiszfeld(products: Tensor, weights: Tensor, smoothing: float) -> Tensor:
    """The geometric median's weights, from the mean's. Slow to end where the median is one of the updates, so there
    are many small steps: numpy's, which cost a tenth of torch's at this size."""
    inner, own, at = products.numpy(), weights.numpy(), weights.numpy()
    for _ in range(WEISZFELD_STEPS):
        across = inner @ at
        distances = np.sqrt(np.clip(inner.diagonal() - 2 * across + at @ across, 0, None))
        shares = own / np.maximum(distances, max(smoothing * float(np.median(distances)), 1e-300))
        shares = shares / shares.sum()
        moved = float(np.abs(shares - at).max())
        at = shares
        if moved < ROUNDING:
            break
    return torch.from_numpy(at)


def _clipped(products: Tensor, weights: Tensor, bound: float | None, iterations: int) -> Tensor:
    """Clipping's weights; what they lack of 1 stays with the start."""
    at = torch.zeros_like(weights)
    for _ in range(iterations):
        distances = _distances_from(products, at)
        limit = _middle(distances) if bound is None else bound
        factors = torch.where(distances > limit, limit / distances.clamp(min=1e-300), torch.ones_like(distances))
        at = at * (1 - float((weights * factors).sum())) + weights * factors
    return at


def _distances_from(products: Tensor, weights: Tensor) -> Tensor:
    """|x_i - v| for v = start + sum_j a_j (x_j - start), from inner products alone."""
    across = products @ weights
    squared = products.diagonal() - 2 * across + weights @ across
    return squared.clamp(min=0).sqrt()


def _middle(values: Tensor) -> float:
    """The median; of an even number the lower of the two, which an honest center holds as long as n >= 2 f + 1."""
    return float(values.median())


def _distances2(products: Tensor) -> Tensor:
    own = products.diagonal()
    return (own[:, None] + own[None, :] - 2 * products).clamp(min=0)


def _krum_scores(products: Tensor, faulty: int) -> Tensor:
    return _scores(_distances2(products), faulty)


def _scores(distances2: Tensor, faulty: int) -> Tensor:
    """Each one's summed squared distance to its n - f - 2 nearest others."""
    n = len(distances2)
    others = distances2 + torch.diag(torch.full((n,), torch.inf, dtype=torch.float64))
    return others.sort(dim=1).values[:, : max(1, n - faulty - 2)].sum(dim=1)


def _chosen(scores: Tensor, count: int) -> Tensor:
    """Equal weights for the least scores, the first of equals."""
    weights = torch.zeros_like(scores)
    weights[scores.argsort(stable=True)[:count]] = 1.0 / count
    return weights


def _repeated_krum(distances2: Tensor, faulty: int, count: int) -> list[int]:
    """Indices, rising, of ``count`` updates that Krum names one after another."""
    left = list(range(len(distances2)))
    chosen: list[int] = []
    while len(chosen) < count:
        scores = _scores(distances2[left][:, left], faulty) if len(left) > 1 else torch.zeros(1)
        chosen.append(left.pop(int(scores.argsort(stable=True)[0])))
    return sorted(chosen)


@dataclass(frozen=True)
class _Group:
    """Tensors that the same updates carry, and how many of those updates are taken to be faulty."""

    names: list[str]
    carriers: list[Update]
    faulty: int


def _parts(names: Sequence[str]) -> str:
    return ", ".join(sorted({name.partition("/")[0] for name in names}))


def _groups(updates: Sequence[Update], start: State, setting: Setting, notes: list[str]) -> list[_Group]:
    """Tensors with their carriers, each group large enough for the rule; what is not so, or only so with fewer faulty
    ones, is noted. Raises TooFewUpdates where no group is large enough."""
    ordered = canonical(updates)
    for update in ordered:
        for name in update.state:
            check_shape(update, name, start[name])
    spec, stopped = setting.federation, setting.stopped
    found: list[_Group] = []
    short: list[str] = []
    for names, carriers in groups(ordered, start):
        faulty = withstood(spec.kind, spec.faulty, updates=len(carriers), stopped=stopped)
        if faulty is None:
            short.append(f"{len(carriers)} updates carry {_parts(names)}")
            continue
        found.append(_Group(names, carriers, faulty))
        if faulty < spec.faulty:
            notes.append(_lowered(spec, faulty, stopped, len(carriers), names))
    if short and not found:
        raise TooFewUpdates(
            f"{_needs(spec, stopped)}, but {' and '.join(short)}: the round is void. Lower federation.faulty, or "
            "choose a rule with a lower bound (norm_clip, geometric_median)."
        )
    notes += [f"{_needs(spec, stopped)}, but {there}: that stays as it was." for there in short]
    return found


def _lowered(spec: Any, faulty: int, stopped: int, updates: int, names: Sequence[str]) -> str:
    return (
        f"Rule {spec.kind} withstands {faulty} instead of {spec.faulty} faulty centers among the {updates} that send "
        f"{_parts(names)}: the guards keep {stopped} out of this round."
    )


def _needs(spec: Any, stopped: int) -> str:
    times, plus = BOUNDS[spec.kind]
    faulty = _fewest_faulty(spec.faulty, stopped)
    less = f" ({spec.faulty}, less those of the {stopped} stopped by the guards)" if faulty < spec.faulty else ""
    return (
        f"Rule {spec.kind} withstands {faulty} faulty centers{less} among at least {times} x {faulty} + {plus} = "
        f"{least_updates(spec.kind, faulty)}"
    )
