"""Geometric rules: inner products of the updates' differences from the start decide the weights of a combination."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from common.adapters.lowrank import pairs_of
from common.protocol.messages import State
from server.aggregation import factors
from server.aggregation.mean import combine
from server.aggregation.types import CHUNK, Aggregated, Setting, Update
from server.aggregation.withstand import withstanding_groups


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
    for group in withstanding_groups(updates, start, setting, whole.notes):
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


def squared_distances(products: Tensor) -> Tensor:
    own = products.diagonal()
    return (own[:, None] + own[None, :] - 2 * products).clamp(min=0)


def _krum_scores(products: Tensor, faulty: int) -> Tensor:
    return _scores(squared_distances(products), faulty)


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


def repeated_krum(distances2: Tensor, faulty: int, count: int) -> list[int]:
    """Indices, rising, of ``count`` updates that Krum names one after another."""
    left = list(range(len(distances2)))
    chosen: list[int] = []
    while len(chosen) < count:
        scores = _scores(distances2[left][:, left], faulty) if len(left) > 1 else torch.zeros(1)
        chosen.append(left.pop(int(scores.argsort(stable=True)[0])))
    return sorted(chosen)
