"""Aggregation of low-rank factors: what becomes of B_i A_i when factors are averaged, and rules that are exact.

With weights w_i that sum to 1, the ideal is dW* = s sum_i w_i B_i A_i (s = alpha / rank). FEDERATION.md section 1 has
the derivations; every identity is a test. Rules by their name in `LoraPart.rule`, bytes per layer and center up / down:

| rule | what happens | exact | bytes |
|---|---|---|---|
| fedit | means of B and of A | no: off by the cross-covariance s sum w (B_i - B)(A_i - A) | 1 / 1 |
| ffa | A frozen (seeded), mean of B (FFA-LoRA, arXiv 2403.12313) | yes | half / half |
| rolora | B in odd rounds, A in even ones, the other common (RoLoRA, NeurIPS 2025) | yes, each round | half / half |
| fedsvd | mean of B, then B A = U S V': A := V', B := U S (arXiv 2505.12805) | yes | half / 1 |
| fedsb | B and A frozen (seeded), mean of the r x r middle (Fed-SB, arXiv 2502.15436) | yes | r^2 / r^2 |
| flora | sum w B_i A_i to the side factor, B := 0, A anew (NeurIPS 2024) | to the side's rank | 1 / 1 + side |
| fedex | means, cross-covariance to the side factor (FedEx-LoRA, ACL 2025) | to the side's rank | 1 / 1 + side |
| flexlora | best rank-r approximation of sum w B_i A_i (NeurIPS 2024) | no: off by the singular tail | 1 / 1 |

Bytes are shares of r (d + k) numbers. What a side factor (of `LoraPart.side_rank`) or a truncation cannot hold is
reported as ``<part>.missed``: its norm over the norm of the round's ideal update. Restarting at B = 0 costs flora what
a fresh A has to learn anew; it is the price of ranks that differ between centers, which only flora and flexlora take.

DoRA's weight is D_i (W + s B_i A_i) with D_i = diag(m_i / row norms). ``flora`` keeps its mean exactly:
sum w_i D_i W = one scale per row, and [w_i s D_i B_i][A_i] in the side factor. ``fedit`` averages (m, B, A) as if they
were independent; what that cost is reported. Products are never formed: QR of the stacked factors, SVD of a small core.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from common.adapters.lowrank import (
    FEDEX,
    FEDIT,
    FEDSVD,
    FLEXLORA,
    FLORA,
    MAGNITUDE,
    SIDE_A,
    SIDE_B,
    STACKED,
    A,
    B,
    Pair,
    lora_rule,
    matrix,
    pairs_of,
)
from common.errors import AdapterError
from common.protocol.messages import State
from server.aggregation.dora import NAIVE_DORA, average_dora, stack_dora
from server.aggregation.factors import (
    Missed,
    Weighted,
    blocks,
    fresh_factors,
    identity,
    matrix_of,
    product_norm2,
    terms,
    truncate,
)
from server.aggregation.types import Setting, Update, canonical


@dataclass
class Merged:
    """New tensors of the LoRA parts, and what is to be reported."""

    state: State = field(default_factory=dict)
    report: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def stacked_names(start: State, setting: Setting) -> set[str]:
    """Factors whose means nobody needs, because their part's rule makes them from the products."""
    makes = (FLORA, FLEXLORA)
    pairs = [pair for pair in pairs_of(start, setting.parts) if pair.rule in makes]
    return {pair.name(suffix) for pair in pairs for suffix in (A, B, MAGNITUDE)}


def merge(updates: Sequence[Update], averaged: State, start: State, setting: Setting) -> Merged:
    """What the LoRA parts' own rules make of a round.

    Args:
        updates: in any order; those that lack a pair do not take part in it.
        averaged: the means (of whatever `stacked_names` does not hold).
    """
    merged = Merged()
    costs: dict[str, Missed] = {}
    ordered = canonical(updates)
    for pair in pairs_of(start, setting.parts):
        if not (pair.rule in STACKED or pair.rule == FEDIT):
            continue
        carrying = [u for u in ordered if pair.name(A) in u.state and pair.name(B) in u.state]
        if not carrying:
            continue
        total = sum(update.weight for update in carrying)
        weighted = [(update.weight / total, update.state) for update in carrying]
        made, missed = _rule(pair)(pair, weighted, averaged, start, setting)
        merged.state |= {name: value.to(start[name].dtype).view(start[name].shape) for name, value in made.items()}
        cost = costs.setdefault(pair.part, Missed())
        cost.missed, cost.update = cost.missed + missed.missed, cost.update + missed.update
    for part, cost in costs.items():
        merged.report[f"{part}.missed"] = cost.share
        spec = setting.parts[part]
        if spec.dora and lora_rule(spec) == FEDIT:
            known = any(layer.startswith(f"{part}/") for layer in setting.base)
            said = f"{100 * cost.share:.2g} %" if known else "an unknown share (no frozen weights were given)"
            merged.notes.append(NAIVE_DORA.format(part=part, cost=said))
    return merged


MergeRule = Callable[[Pair, Weighted, State, State, Setting], tuple[State, Missed]]


def _rule(pair: Pair) -> MergeRule:
    if pair.spec.dora:
        return {FEDIT: average_dora, FLORA: stack_dora}[pair.rule]
    return {FEDIT: _plain, FLORA: _stack, FEDEX: _residual, FLEXLORA: _truncated}[pair.rule]


def _plain(pair: Pair, weighted: Weighted, averaged: State, start: State, setting: Setting) -> tuple[State, Missed]:
    """Nothing but the means; missed: the cross-covariance of the factors."""
    states = [state for _, state in weighted]
    for state in states:
        _same_rank(pair, state, start[pair.name(A)])
    w, n = torch.tensor([w for w, _ in weighted], dtype=torch.float64), len(weighted)
    one, zero = identity(n), torch.zeros(n, 1, dtype=torch.float64)
    stacked = blocks(pair, states, start)
    apart = torch.cat([one - w, zero], dim=1)  # row i: block i less the mean of blocks
    missed = terms(pair, stacked, apart, w[:, None] * apart)
    # dW* - dW_start = sum w_i (B_i - B_0) A_i + B_0 sum w_i (A_i - A_0)
    left = torch.cat([torch.cat([one, zero], dim=1), torch.cat([zero.T, zero[:1] + 1], dim=1)])
    right = torch.cat([w[:, None] * torch.cat([one, zero + 1], dim=1), torch.cat([w[None], zero[:1]], dim=1)])
    return {}, Missed(float(missed.sum()), float(terms(pair, stacked, left, right).sum()))


def _residual(pair: Pair, weighted: Weighted, averaged: State, start: State, setting: Setting) -> tuple[State, Missed]:
    """The means, and the cross-covariance in the side factor: rank at most r (N - 1) more a round."""
    made, tail = _into_side(pair, start, *_covariance(pair, weighted, averaged))
    return made, _missed(tail, pair, weighted, start)


def _stack(pair: Pair, weighted: Weighted, averaged: State, start: State, setting: Setting) -> tuple[State, Missed]:
    """[w_i s B_i][A_i] in the side factor: rank at most sum r_i more a round; then a new pair with B = 0."""
    made, tail = _into_side(pair, start, *_products(pair, weighted))
    return {**made, **fresh_factors(pair, start, setting)}, _missed(tail, pair, weighted, start)


def _truncated(pair: Pair, weighted: Weighted, averaged: State, start: State, setting: Setting) -> tuple[State, Missed]:
    """The best rank-r factors of the mean product, singular values shared evenly between them."""
    rank = len(matrix_of(start, pair, A))
    left, values, right, tail = truncate(*_products(pair, weighted), rank=rank)
    root = (values / pair.scale).sqrt()
    made = {pair.name(B): left * root, pair.name(A): root[:, None] * right}
    return made, _missed(tail, pair, weighted, start)


def _covariance(pair: Pair, weighted: Weighted, averaged: State) -> tuple[Tensor, Tensor]:
    """s sum w (B_i - B)(A_i - A) as one product of stacked factors."""
    a, b = matrix_of(averaged, pair, A), matrix_of(averaged, pair, B)
    for _, state in weighted:
        _same_rank(pair, state, a)
    left = [pair.scale * w * (matrix_of(state, pair, B) - b) for w, state in weighted]
    right = [matrix_of(state, pair, A) - a for _, state in weighted]
    # Rounded means (float32) leave a remainder of first order, which belongs to what the mean misses.
    rest_b = sum(w * matrix_of(state, pair, B) for w, state in weighted) - b
    rest_a = sum(w * matrix_of(state, pair, A) for w, state in weighted) - a
    return torch.cat([*left, pair.scale * rest_b, pair.scale * b], dim=1), torch.cat([*right, a, rest_a])


def _products(pair: Pair, weighted: Weighted) -> tuple[Tensor, Tensor]:
    """s sum w B_i A_i as one product of stacked factors; ranks may differ between centers."""
    left = [pair.scale * w * matrix_of(state, pair, B) for w, state in weighted]
    return torch.cat(left, dim=1), torch.cat([matrix_of(state, pair, A) for _, state in weighted])


def _into_side(pair: Pair, start: State, left: Tensor, right: Tensor) -> tuple[State, float]:
    """The side factor with something added, recompressed to its room, and the squared norm of what did not fit."""
    side_b, side_a = matrix_of(start, pair, SIDE_B), matrix_of(start, pair, SIDE_A)
    used = side_a.abs().sum(dim=1) > 0
    left, right = torch.cat([side_b[:, used], left], dim=1), torch.cat([side_a[used], right])
    u, values, v, tail = truncate(left, right, rank=len(side_a))
    root = values.sqrt()
    return {pair.name(SIDE_B): u * root, pair.name(SIDE_A): root[:, None] * v}, tail


def _missed(missed: float, pair: Pair, weighted: Weighted, start: State) -> Missed:
    """Beside the norm of the round's ideal update, dW* - dW_start."""
    a, b = matrix_of(start, pair, A), matrix_of(start, pair, B)
    left = [w * matrix_of(state, pair, B) for w, state in weighted]
    update = product_norm2(torch.cat([*left, -b], dim=1), torch.cat([*(matrix_of(s, pair, A) for _, s in weighted), a]))
    return Missed(missed, pair.scale**2 * update)


def _same_rank(pair: Pair, state: State, a: Tensor) -> None:
    if len(state[pair.name(A)]) != len(a):
        raise AdapterError(
            f"Layer '{pair.layer}' came with rank {len(state[pair.name(A)])} and has rank {len(a)}; centers of "
            "different rank need rule flora or flexlora."
        )


def refresh(state: State, memory: State, setting: Setting) -> tuple[State, State]:
    """FedSVD's reparametrisation, where a part asks for it in this round: A gets orthonormal rows, B A stays.

    What a server optimizer remembers of B moves along: a first moment is turned into the new basis exactly (both bases
    span the same rows), a second moment has no such image and starts anew.
    """
    for pair in pairs_of(state, setting.parts):
        if pair.rule != FEDSVD or setting.round % pair.spec.refresh_every:
            continue
        name_a, name_b = pair.name(A), pair.name(B)
        a, b = matrix_of(state, pair, A), matrix_of(state, pair, B)
        u, values, v, _ = truncate(b, a, rank=len(a))
        new = {name_a: v, name_b: u * values}
        state = {**state, **{n: value.to(state[n].dtype).view(state[n].shape) for n, value in new.items()}}
        turn = a @ v.T
        remembered = {key: matrix(value) for key, value in memory.items() if key.partition("/")[2] == name_b}
        for key, value in remembered.items():
            turned = value @ turn if key.startswith("momentum/") else None
            kept = {k: v for k, v in memory.items() if k != key}
            memory = kept if turned is None else {**kept, key: turned.view(memory[key].shape)}
    return state, memory
