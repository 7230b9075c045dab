"""Merging: several steps' adapters as one start, by their effective updates, never by their factors.

The factors of a LoRA pair are defined up to any invertible matrix between them, so that means, signs and magnitudes of
their entries say nothing. What is merged is B A, which is then cut to the step's rank again. Everything else is merged
as its difference to what the seed makes. A sum of several steps and one that is trimmed and elected are Ilharco et al.
(ICLR 2023) and TIES (Yadav et al., NeurIPS 2023).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from common.adapters.lowrank import A, B, matrix, pairs_of
from common.config.methods.continual import MergeMethod
from common.config.step import Step
from common.protocol.messages import State

TIED = 1e-6  # of the summed magnitudes: a sum that is this small has no sign of its own


def merged(spec: MergeMethod, step: Step, initial: State, sources: Sequence[tuple[Step, State]]) -> State:
    """A step's start: what all of the sources have under the step's names, merged; the initial others.

    One source at scale 1 and density 1 is its state, bit for bit.

    Args:
        initial: the step's state as the seed makes it.
        sources: the steps to merge, with the state that each left. Ranks and scales of their LoRA parts may differ.
    """
    found, states = dict(initial), [state for _, state in sources]
    if len(states) == 1 and spec.scale == 1 and (spec.how != "ties" or spec.density == 1):
        return found | {n: t for n, t in states[0].items() if n in initial and t.shape == initial[n].shape}
    factors: set[str] = set()
    for pair in pairs_of(initial, step.adapter.parts):
        names = (pair.name(B), pair.name(A))
        factors |= {*names}
        updates = [effective(pair.layer, *source) for source in sources]
        if all(update is not None for update in updates):
            update = combined([one for one in updates if one is not None], spec) / pair.scale
            found |= dict(zip(names, _refactored(update, initial[names[0]], initial[names[1]]), strict=True))
    for name, tensor in initial.items():
        if name not in factors and tensor.is_floating_point() and _in_all(name, tensor, states):
            ways = [state[name].double() - tensor.double() for state in states]
            found[name] = (tensor.double() + combined(ways, spec)).to(tensor.dtype)
    return found


def effective(layer: str, step: Step, state: State) -> Tensor | None:
    """scale B A of one layer of a step's LoRA part, (out, in), float64; None where it adapts no such layer."""
    for pair in pairs_of(state, step.adapter.parts):
        if pair.layer == layer:
            return pair.scale * (matrix(state[pair.name(B)]).double() @ matrix(state[pair.name(A)]).double())
    return None


def combined(vectors: Sequence[Tensor], spec: MergeMethod) -> Tensor:
    """Task vectors of one tensor as one."""
    if spec.how == "average":
        return spec.scale * torch.stack(list(vectors)).mean(dim=0)
    if spec.how == "arithmetic":
        return spec.scale * torch.stack(list(vectors)).sum(dim=0)
    return spec.scale * ties(vectors, density=spec.density)


def ties(vectors: Sequence[Tensor], *, density: float) -> Tensor:
    """TIES: of each vector the largest entries, of each entry the sign with more mass, the mean of those that agree.

    Where the masses of both signs are equal, the sign is that of the largest entry: a convention, as any would be.
    """
    kept = torch.stack([trimmed(vector, density=density) for vector in vectors])
    total, mass = kept.sum(dim=0), kept.abs().sum(dim=0)
    largest = kept.gather(0, kept.abs().argmax(dim=0, keepdim=True))[0]
    sign = torch.where(total.abs() <= TIED * mass, largest, total).sign()
    agrees = (kept.sign() == sign) & (kept != 0)
    return (kept * agrees).sum(dim=0) / agrees.sum(dim=0).clamp(min=1)


def trimmed(vector: Tensor, *, density: float) -> Tensor:
    """The entries of the largest magnitude, a share of all; the others are 0."""
    keep = round(density * vector.numel())
    if keep >= vector.numel():
        return vector
    places = vector.abs().flatten().argsort(descending=True, stable=True)[:keep]
    mask = torch.zeros(vector.numel(), dtype=torch.bool)
    mask[places] = True
    return vector * mask.view_as(vector)


def _refactored(update: Tensor, b: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """B and A of the given shapes, as balanced as can be, whose product is nearest to an update."""
    left, values, right = torch.linalg.svd(update, full_matrices=False)
    rank = min(b.shape[1], len(values))
    root = values[:rank].clamp(min=0).sqrt()
    new_b, new_a = torch.zeros_like(matrix(b)).double(), torch.zeros_like(matrix(a)).double()
    new_b[:, :rank], new_a[:rank] = left[:, :rank] * root, root[:, None] * right[:rank]
    return new_b.view_as(b).to(b.dtype), new_a.view_as(a).to(a.dtype)


def _in_all(name: str, tensor: Tensor, states: Sequence[Mapping[str, Tensor]]) -> bool:
    return all(name in state and state[name].shape == tensor.shape for state in states)
