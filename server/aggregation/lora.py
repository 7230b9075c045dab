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

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from common.adapters.factors import (
    FEDEX,
    FEDIT,
    FEDSVD,
    FLEXLORA,
    FLORA,
    MAGNITUDE,
    MIDDLE,
    SIDE_A,
    SIDE_B,
    SIDE_SCALE,
    STACKED,
    A,
    B,
    Pair,
    lora_rule,
    matrix,
    pairs_of,
)
from common.errors import AdapterError
from common.orders import State
from common.seeding import generator_for
from server.aggregation.updates import Setting, Update, canonical

NAIVE_DORA = (
    "Part '{part}' is DoRA and averaged as plain factors (rule fedit), although its row norms depend on them; the mean "
    "missed {cost} of the round's update. Rule flora is exact."
)


@dataclass
class Merged:
    """New tensors of the LoRA parts, and what is to be reported."""

    state: State = field(default_factory=dict)
    report: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass
class Missed:
    """Squared Frobenius norms over a part's layers: of what the rule missed, and of the round's ideal update."""

    missed: float = 0.0
    update: float = 0.0

    @property
    def share(self) -> float:
        """The norm of what was missed over that of the update."""
        return math.sqrt(max(self.missed, 0.0) / self.update) if self.update > 0 else 0.0


# -------------------------------------------------------------------------------------------------- after the mean


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
    for pair in pairs_of(start, setting.parts):
        carrying = [u for u in canonical(updates) if pair.name(A) in u.state and pair.name(B) in u.state]
        if not carrying or not (pair.rule in STACKED or pair.rule == FEDIT):
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


Weighted = Sequence[tuple[float, State]]
MergeRule = Callable[[Pair, Weighted, State, State, Setting], tuple[State, Missed]]


def _rule(pair: Pair) -> MergeRule:
    if pair.spec.dora:
        return {FEDIT: _dora_naive, FLORA: _dora_stack}[pair.rule]
    return {FEDIT: _plain, FLORA: _stack, FEDEX: _residual, FLEXLORA: _truncated}[pair.rule]


def _plain(pair: Pair, weighted: Weighted, averaged: State, start: State, setting: Setting) -> tuple[State, Missed]:
    """Nothing but the means; missed: the cross-covariance of the factors."""
    states = [state for _, state in weighted]
    for state in states:
        _same_rank(pair, state, start[pair.name(A)])
    w, n = torch.tensor([w for w, _ in weighted], dtype=torch.float64), len(weighted)
    one, zero = _eye(n), torch.zeros(n, 1, dtype=torch.float64)
    blocks = _blocks(pair, states, start)
    apart = torch.cat([one - w, zero], dim=1)  # row i: block i less the mean of blocks
    missed = _terms(pair, blocks, apart, w[:, None] * apart)
    # dW* - dW_start = sum w_i (B_i - B_0) A_i + B_0 sum w_i (A_i - A_0)
    left = torch.cat([torch.cat([one, zero], dim=1), torch.cat([zero.T, zero[:1] + 1], dim=1)])
    right = torch.cat([w[:, None] * torch.cat([one, zero + 1], dim=1), torch.cat([w[None], zero[:1]], dim=1)])
    return {}, Missed(float(missed.sum()), float(_terms(pair, blocks, left, right).sum()))


def _residual(pair: Pair, weighted: Weighted, averaged: State, start: State, setting: Setting) -> tuple[State, Missed]:
    """The means, and the cross-covariance in the side factor: rank at most r (N - 1) more a round."""
    made, tail = _into_side(pair, start, *_covariance(pair, weighted, averaged))
    return made, _missed(tail, pair, weighted, start)


def _stack(pair: Pair, weighted: Weighted, averaged: State, start: State, setting: Setting) -> tuple[State, Missed]:
    """[w_i s B_i][A_i] in the side factor: rank at most sum r_i more a round; then a new pair with B = 0."""
    made, tail = _into_side(pair, start, *_products(pair, weighted))
    return {**made, **_fresh(pair, start, setting)}, _missed(tail, pair, weighted, start)


def _truncated(pair: Pair, weighted: Weighted, averaged: State, start: State, setting: Setting) -> tuple[State, Missed]:
    """The best rank-r factors of the mean product, singular values shared evenly between them."""
    rank = len(_m(start, pair, A))
    left, values, right, tail = truncate(*_products(pair, weighted), rank=rank)
    root = (values / pair.scale).sqrt()
    made = {pair.name(B): left * root, pair.name(A): root[:, None] * right}
    return made, _missed(tail, pair, weighted, start)


def _covariance(pair: Pair, weighted: Weighted, averaged: State) -> tuple[Tensor, Tensor]:
    """s sum w (B_i - B)(A_i - A) as one product of stacked factors."""
    a, b = _m(averaged, pair, A), _m(averaged, pair, B)
    for _, state in weighted:
        _same_rank(pair, state, a)
    left = [pair.scale * w * (_m(state, pair, B) - b) for w, state in weighted]
    right = [_m(state, pair, A) - a for _, state in weighted]
    # Rounded means (float32) leave a remainder of first order, which belongs to what the mean misses.
    rest_b = sum(w * _m(state, pair, B) for w, state in weighted) - b
    rest_a = sum(w * _m(state, pair, A) for w, state in weighted) - a
    return torch.cat([*left, pair.scale * rest_b, pair.scale * b], dim=1), torch.cat([*right, a, rest_a])


def _products(pair: Pair, weighted: Weighted) -> tuple[Tensor, Tensor]:
    """s sum w B_i A_i as one product of stacked factors; ranks may differ between centers."""
    left = [pair.scale * w * _m(state, pair, B) for w, state in weighted]
    return torch.cat(left, dim=1), torch.cat([_m(state, pair, A) for _, state in weighted])


def _into_side(pair: Pair, start: State, left: Tensor, right: Tensor) -> tuple[State, float]:
    """The side factor with something added, recompressed to its room, and the squared norm of what did not fit."""
    side_b, side_a = _m(start, pair, SIDE_B), _m(start, pair, SIDE_A)
    used = side_a.abs().sum(dim=1) > 0
    left, right = torch.cat([side_b[:, used], left], dim=1), torch.cat([side_a[used], right])
    u, values, v, tail = truncate(left, right, rank=len(side_a))
    root = values.sqrt()
    return {pair.name(SIDE_B): u * root, pair.name(SIDE_A): root[:, None] * v}, tail


def _fresh(pair: Pair, start: State, setting: Setting) -> State:
    """B = 0 and an A drawn as peft draws it, the same for every center: seeded by the layer and the round."""
    a, b = _m(start, pair, A), _m(start, pair, B)
    generator = generator_for("factor", pair.layer, setting.round)
    drawn = torch.rand(a.shape, generator=generator, dtype=torch.float64)
    return {pair.name(A): (2 * drawn - 1) / a.shape[1] ** 0.5, pair.name(B): torch.zeros_like(b)}


def _missed(missed: float, pair: Pair, weighted: Weighted, start: State) -> Missed:
    """Beside the norm of the round's ideal update, dW* - dW_start."""
    a, b = _m(start, pair, A), _m(start, pair, B)
    left = [w * _m(state, pair, B) for w, state in weighted]
    update = product_norm2(torch.cat([*left, -b], dim=1), torch.cat([*(_m(s, pair, A) for _, s in weighted), a]))
    return Missed(missed, pair.scale**2 * update)


def _same_rank(pair: Pair, state: State, a: Tensor) -> None:
    if len(state[pair.name(A)]) != len(a):
        raise AdapterError(
            f"Layer '{pair.layer}' came with rank {len(state[pair.name(A)])} and has rank {len(a)}; centers of "
            "different rank need rule flora or flexlora."
        )


# ------------------------------------------------------------------------------------------------------------- DoRA


@dataclass
class Rows:
    """diag(scale) W + left right, for a frozen W (d, k) that is never copied: scale (d), left (d, R), right (R, k)."""

    scale: Tensor
    left: Tensor
    right: Tensor

    def norms2(self, weight: Tensor) -> Tensor:
        """Squared norm of each row, (d)."""
        crossed = (self.left * (weight @ self.right.T)).sum(dim=1)
        own = (weight * weight).sum(dim=1)
        low = ((self.left @ (self.right @ self.right.T)) * self.left).sum(dim=1)
        return (self.scale**2 * own + 2 * self.scale * crossed + low).clamp(min=0)

    def minus(self, other: Rows) -> Rows:
        """The difference, with as many columns as both together."""
        left, right = torch.cat([self.left, -other.left], dim=1), torch.cat([self.right, other.right])
        return Rows(self.scale - other.scale, left, right)


def dora_rows(state: State, pair: Pair, weight: Tensor, *, start: State) -> tuple[Rows, Tensor]:
    """A center's effective weight D (side of W + s B A), and D's diagonal (d)."""
    inner = _inner(state, pair, start)
    gain = _m(state, pair, MAGNITUDE).flatten() / inner.norms2(weight).sqrt()
    return Rows(gain * inner.scale, gain[:, None] * inner.left, inner.right), gain


def _inner(state: State, pair: Pair, start: State) -> Rows:
    """side of W + s B A: what DoRA's direction is made of."""
    left, right = pair.scale * _m(state, pair, B), _m(state, pair, A)
    scale = torch.ones(len(left), dtype=torch.float64)
    if pair.name(SIDE_B) in start:
        scale = start[pair.name(SIDE_SCALE)].to(torch.float64)
        left = torch.cat([_m(start, pair, SIDE_B), left], dim=1)
        right = torch.cat([_m(start, pair, SIDE_A), right])
    return Rows(scale, left, right)


def _mean_rows(pair: Pair, weighted: Weighted, weight: Tensor, start: State) -> Rows:
    """sum w_i D_i (side of W + s B_i A_i), the side's columns once."""
    gains = [dora_rows(state, pair, weight, start=start)[1] for _, state in weighted]
    gain = torch.stack([w * g for (w, _), g in zip(weighted, gains, strict=True)]).sum(dim=0)
    left = [pair.scale * w * g[:, None] * _m(s, pair, B) for (w, s), g in zip(weighted, gains, strict=True)]
    right = [_m(state, pair, A) for _, state in weighted]
    if pair.name(SIDE_B) not in start:
        return Rows(gain, torch.cat(left, dim=1), torch.cat(right))
    left, right = [gain[:, None] * _m(start, pair, SIDE_B), *left], [_m(start, pair, SIDE_A), *right]
    return Rows(gain * start[pair.name(SIDE_SCALE)].to(torch.float64), torch.cat(left, dim=1), torch.cat(right))


def _dora_stack(
    pair: Pair, weighted: Weighted, averaged: State, start: State, setting: Setting
) -> tuple[State, Missed]:
    """The exact mean weight as row scales and side factor; then a new pair, B = 0, m = the new rows' norms."""
    if pair.layer not in setting.base:
        raise AdapterError(f"The exact stack of DoRA needs the frozen weight of '{pair.layer}', which is not given.")
    weight = matrix(setting.base[pair.layer]).to(torch.float64)
    ideal = _mean_rows(pair, weighted, weight, start)
    u, values, v, tail = truncate(ideal.left, ideal.right, rank=len(_m(start, pair, SIDE_A)))
    root = values.sqrt()
    kept = Rows(ideal.scale, u * root, root[:, None] * v)
    before = dora_rows(start, pair, weight, start=start)[0]
    made = {
        pair.name(SIDE_SCALE): kept.scale,
        pair.name(SIDE_B): kept.left,
        pair.name(SIDE_A): kept.right,
        pair.name(MAGNITUDE): kept.norms2(weight).sqrt(),
        **_fresh(pair, start, setting),
    }
    return made, Missed(tail, float(ideal.minus(before).norms2(weight).sum()))


def _dora_naive(
    pair: Pair, weighted: Weighted, averaged: State, start: State, setting: Setting
) -> tuple[State, Missed]:
    """Means of m, B and A; missed: the distance from the exact stack."""
    if pair.layer not in setting.base:
        return {}, Missed()
    weight = matrix(setting.base[pair.layer]).to(torch.float64)
    ideal = _mean_rows(pair, weighted, weight, start)
    got = dora_rows(averaged, pair, weight, start=start)[0]
    before = dora_rows(start, pair, weight, start=start)[0]
    missed = float(got.minus(ideal).norms2(weight).sum())
    return {}, Missed(missed, float(ideal.minus(before).norms2(weight).sum()))


# ------------------------------------------------------------------------------------------------ FedSVD's new basis


def refresh(state: State, memory: State, setting: Setting) -> tuple[State, State]:
    """FedSVD's reparametrisation, where a part asks for it in this round: A gets orthonormal rows, B A stays.

    What a server optimizer remembers of B moves along: a first moment is turned into the new basis exactly (both bases
    span the same rows), a second moment has no such image and starts anew.
    """
    for pair in pairs_of(state, setting.parts):
        if pair.rule != FEDSVD or setting.round % pair.spec.refresh_every:
            continue
        name_a, name_b = pair.name(A), pair.name(B)
        a, b = _m(state, pair, A), _m(state, pair, B)
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


# ----------------------------------------------------------------------------------------------- small linear algebra


def truncate(left: Tensor, right: Tensor, *, rank: int) -> tuple[Tensor, Tensor, Tensor, float]:
    """The best rank-r approximation of left (d, R) right (R, k) without forming the product.

    Returns:
        U (d, r) and V' (r, k) with orthonormal columns and rows, singular values (r) falling, all padded with zeros
        where the product has less room; and the squared norm of what is left out, sum_{j > r} s_j^2.
    """
    q_left, r_left = torch.linalg.qr(left)
    q_right, r_right = torch.linalg.qr(right.T)
    u, values, vt = torch.linalg.svd(r_left @ r_right.T, full_matrices=False)
    tail = float((values[rank:] ** 2).sum())
    u, values, vt = q_left @ u[:, :rank], values[:rank], vt[:rank] @ q_right.T
    sign = torch.sign(u.gather(0, u.abs().argmax(dim=0, keepdim=True))[0])
    sign = torch.where(sign == 0, torch.ones_like(sign), sign)  # the SVD leaves signs open: the largest is positive
    short = rank - len(values)
    pad = torch.nn.functional.pad
    return pad(u * sign, (0, short)), pad(values, (0, short)), pad(sign[:, None] * vt, (0, 0, 0, short)), tail


def product_norm2(left: Tensor, right: Tensor) -> float:
    """Squared Frobenius norm of left (d, R) right (R, k) through two Gram matrices, tr((L'L)(R R'))."""
    return float(((left.T @ left) * (right @ right.T)).sum())


def effective_gram(pair: Pair, states: Sequence[Mapping[str, Tensor]], start: State) -> Tensor:
    """Inner products (n, n) of the updates' effective differences s (B_i A_i - B_0 A_0), in float64.

    <P_i Q_i, P_j Q_j> = tr((P_i' P_j)(Q_j Q_i')) for B_i A_i - B_0 A_0 = (B_i - B_0) A_i + B_0 (A_i - A_0): no product
    is formed and nothing cancels where updates are small. Gauge changes (B R^-1, R A) leave it as it is. Where only
    one factor moved, the others' Gram matrices are split into roots and plain vectors remain.
    """
    moved = [suffix for suffix in (A, B) if any(pair.name(suffix) in state for state in states)]
    if pair.name(MIDDLE) in start:
        moved = [MIDDLE]  # Fed-SB trains nothing else
    if len(moved) == 2:
        return _both_moved(pair, states, start)
    [suffix] = moved
    rows = _between_roots(pair, [_m(state, pair, suffix) for state in states], suffix, start)
    return pair.scale**2 * rows @ rows.T


def _both_moved(pair: Pair, states: Sequence[Mapping[str, Tensor]], start: State) -> Tensor:
    n, one, zero = len(states), _eye(len(states)), torch.zeros(len(states), 1, dtype=torch.float64)
    left = torch.stack([torch.cat([one, zero], dim=1), torch.cat([0 * one, zero + 1], dim=1)], dim=1)
    right = torch.stack([torch.cat([one, zero + 1], dim=1), torch.cat([one, zero], dim=1)], dim=1)
    terms = _terms(pair, _blocks(pair, states, start), left.reshape(2 * n, n + 1), right.reshape(2 * n, n + 1))
    return terms.view(n, 2, n, 2).sum(dim=(1, 3))


def _blocks(pair: Pair, states: Sequence[Mapping[str, Tensor]], start: State) -> tuple[Tensor, Tensor]:
    """Gram matrices of P = B_1 - B_0, ..., B_n - B_0, B_0 side by side, and of Q, the same of A."""
    b0, a0 = _m(start, pair, B), _m(start, pair, A)
    p = torch.cat([*(_m(state, pair, B) - b0 for state in states), b0], dim=1)
    q = torch.cat([*(_m(state, pair, A) - a0 for state in states), a0])
    return p.T @ p, q @ q.T


def _terms(pair: Pair, blocks: tuple[Tensor, Tensor], left: Tensor, right: Tensor) -> Tensor:
    """Inner products (T, T) of the terms s (sum_i left[t, i] P_i)(sum_j right[t, j] Q_j)."""
    rank = int(pair.spec.rank)
    wide_left, wide_right = (torch.kron(c, _eye(rank)) for c in (left, right))
    product = (wide_left @ blocks[0] @ wide_left.T) * (wide_right @ blocks[1] @ wide_right.T)
    return pair.scale**2 * product.view(len(left), rank, len(left), rank).sum(dim=(1, 3))


def _between_roots(pair: Pair, values: Sequence[Tensor], suffix: str, start: State) -> Tensor:
    """A moved factor's differences, one a row, with the roots of what stands on either side of it: their norms are
    the products'."""
    a, b = _m(start, pair, A), _m(start, pair, B)
    changes = torch.stack(list(values)) - _m(start, pair, suffix)
    if suffix != A:
        changes = changes @ _root(a @ a.T)
    if suffix != B:
        changes = _root(b.T @ b).T @ changes
    return changes.flatten(1)


def _eye(n: int) -> Tensor:
    return torch.eye(n, dtype=torch.float64)


def _root(square: Tensor) -> Tensor:
    """R with R R' = square, for a square that may be singular (B = 0 in the first round)."""
    values, vectors = torch.linalg.eigh(square)
    return vectors * values.clamp(min=0).sqrt()


def effective_names(pair: Pair) -> Iterable[str]:
    """The tensors that `effective_gram` speaks for."""
    return [pair.name(suffix) for suffix in (A, B, MIDDLE)]


def _m(state: Mapping[str, Tensor], pair: Pair, suffix: str) -> Tensor:
    """One of a layer's tensors as a float64 matrix."""
    return matrix(state[pair.name(suffix)]).to(torch.float64)
