"""Low-rank factors of a state as float64 matrices: fresh ones, truncation, norms and inner products.

No product B A is ever formed: QR of the stacked factors, SVD of a small core.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from common.adapters.lowrank import (
    MIDDLE,
    A,
    B,
    Pair,
    matrix,
)
from common.protocol.messages import State
from common.seeding import generator_for
from server.aggregation.types import Setting


@dataclass
class Missed:
    """Squared Frobenius norms over a part's layers: of what the rule missed, and of the round's ideal update."""

    missed: float = 0.0
    update: float = 0.0

    @property
    def share(self) -> float:
        """The norm of what was missed over that of the update."""
        return math.sqrt(max(self.missed, 0.0) / self.update) if self.update > 0 else 0.0


Weighted = Sequence[tuple[float, State]]


def fresh_factors(pair: Pair, start: State, setting: Setting) -> State:
    """B = 0 and an A drawn as peft draws it, the same for every center: seeded by the layer and the round."""
    a, b = matrix_of(start, pair, A), matrix_of(start, pair, B)
    generator = generator_for("factor", pair.layer, setting.round)
    drawn = torch.rand(a.shape, generator=generator, dtype=torch.float64)
    return {pair.name(A): (2 * drawn - 1) / a.shape[1] ** 0.5, pair.name(B): torch.zeros_like(b)}


def matrix_of(state: Mapping[str, Tensor], pair: Pair, suffix: str) -> Tensor:
    """One of a layer's tensors as a float64 matrix."""
    return matrix(state[pair.name(suffix)]).to(torch.float64)


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
    rows = _between_roots(pair, [matrix_of(state, pair, suffix) for state in states], suffix, start)
    return pair.scale**2 * rows @ rows.T


def effective_squares(pair: Pair, states: Sequence[Mapping[str, Tensor]], start: State) -> list[float]:
    """The diagonal of `effective_gram`, all updates at once: how far each moves the effective weight, squared.

    All carry the same factors of the pair, of the start's shapes.
    """
    moved = [suffix for suffix in (A, B, MIDDLE) if pair.name(suffix) in states[0]]
    a, b = matrix_of(start, pair, A), matrix_of(start, pair, B)
    if pair.name(MIDDLE) in start:
        moved = [MIDDLE]  # Fed-SB trains nothing else
    own = {suffix: torch.stack([matrix_of(state, pair, suffix) for state in states]) for suffix in moved}
    if len(moved) == 2:
        left = torch.cat([own[B] - b, b.expand(len(states), -1, -1)], dim=2)
        right = torch.cat([own[A], own[A] - a], dim=1)
        squares = (left.mT @ left) * (right @ right.mT)
    else:
        change = own[moved[0]] - matrix_of(start, pair, moved[0])
        weighed = change if moved == [A] else change @ (a @ a.T)
        squares = change * (weighed if moved == [B] else (b.T @ b) @ weighed)
    return [pair.scale**2 * max(square, 0.0) for square in squares.sum(dim=(1, 2)).tolist()]


def _both_moved(pair: Pair, states: Sequence[Mapping[str, Tensor]], start: State) -> Tensor:
    n, one, zero = len(states), identity(len(states)), torch.zeros(len(states), 1, dtype=torch.float64)
    left = torch.stack([torch.cat([one, zero], dim=1), torch.cat([0 * one, zero + 1], dim=1)], dim=1)
    right = torch.stack([torch.cat([one, zero + 1], dim=1), torch.cat([one, zero], dim=1)], dim=1)
    products = terms(pair, blocks(pair, states, start), left.reshape(2 * n, n + 1), right.reshape(2 * n, n + 1))
    return products.view(n, 2, n, 2).sum(dim=(1, 3))


def blocks(pair: Pair, states: Sequence[Mapping[str, Tensor]], start: State) -> tuple[Tensor, Tensor]:
    """Gram matrices of P = B_1 - B_0, ..., B_n - B_0, B_0 side by side, and of Q, the same of A."""
    b0, a0 = matrix_of(start, pair, B), matrix_of(start, pair, A)
    p = torch.cat([*(matrix_of(state, pair, B) - b0 for state in states), b0], dim=1)
    q = torch.cat([*(matrix_of(state, pair, A) - a0 for state in states), a0])
    return p.T @ p, q @ q.T


def terms(pair: Pair, blocks: tuple[Tensor, Tensor], left: Tensor, right: Tensor) -> Tensor:
    """Inner products (T, T) of the terms s (sum_i left[t, i] P_i)(sum_j right[t, j] Q_j)."""
    rank = int(pair.spec.rank)
    wide_left, wide_right = (torch.kron(c, identity(rank)) for c in (left, right))
    product = (wide_left @ blocks[0] @ wide_left.T) * (wide_right @ blocks[1] @ wide_right.T)
    return pair.scale**2 * product.view(len(left), rank, len(left), rank).sum(dim=(1, 3))


def _between_roots(pair: Pair, values: Sequence[Tensor], suffix: str, start: State) -> Tensor:
    """A moved factor's differences, one a row, with the roots of what stands on either side of it: their norms are
    the products'."""
    a, b = matrix_of(start, pair, A), matrix_of(start, pair, B)
    changes = torch.stack(list(values)) - matrix_of(start, pair, suffix)
    if suffix != A:
        changes = changes @ _root(a @ a.T)
    if suffix != B:
        changes = _root(b.T @ b).T @ changes
    return changes.flatten(1)


def identity(n: int) -> Tensor:
    return torch.eye(n, dtype=torch.float64)


def _root(square: Tensor) -> Tensor:
    """R with R R' = square, for a square that may be singular (B = 0 in the first round)."""
    values, vectors = torch.linalg.eigh(square)
    return vectors * values.clamp(min=0).sqrt()


def effective_names(pair: Pair) -> Iterable[str]:
    """The tensors that `effective_gram` speaks for."""
    return [pair.name(suffix) for suffix in (A, B, MIDDLE)]
