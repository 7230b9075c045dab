"""DoRA under aggregation: the exact mean of D_i (W + s B_i A_i), and the average that takes its parts as apart."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from common.adapters.lowrank import (
    MAGNITUDE,
    SIDE_A,
    SIDE_B,
    SIDE_SCALE,
    A,
    B,
    Pair,
    matrix,
)
from common.errors import AdapterError
from common.protocol.messages import State
from server.aggregation.factors import Missed, Weighted, fresh_factors, matrix_of, truncate
from server.aggregation.types import Setting

NAIVE_DORA = (
    "Part '{part}' is DoRA and averaged as plain factors (rule fedit), although its row norms depend on them; the mean "
    "missed {cost} of the round's update. Rule flora is exact."
)


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
    gain = matrix_of(state, pair, MAGNITUDE).flatten() / inner.norms2(weight).sqrt()
    return Rows(gain * inner.scale, gain[:, None] * inner.left, inner.right), gain


def _inner(state: State, pair: Pair, start: State) -> Rows:
    """side of W + s B A: what DoRA's direction is made of."""
    left, right = pair.scale * matrix_of(state, pair, B), matrix_of(state, pair, A)
    scale = torch.ones(len(left), dtype=torch.float64)
    if pair.name(SIDE_B) in start:
        scale = start[pair.name(SIDE_SCALE)].to(torch.float64)
        left = torch.cat([matrix_of(start, pair, SIDE_B), left], dim=1)
        right = torch.cat([matrix_of(start, pair, SIDE_A), right])
    return Rows(scale, left, right)


def _mean_rows(pair: Pair, weighted: Weighted, weight: Tensor, start: State) -> Rows:
    """sum w_i D_i (side of W + s B_i A_i), the side's columns once."""
    gains = [dora_rows(state, pair, weight, start=start)[1] for _, state in weighted]
    gain = torch.stack([w * g for (w, _), g in zip(weighted, gains, strict=True)]).sum(dim=0)
    left = [pair.scale * w * g[:, None] * matrix_of(s, pair, B) for (w, s), g in zip(weighted, gains, strict=True)]
    right = [matrix_of(state, pair, A) for _, state in weighted]
    if pair.name(SIDE_B) not in start:
        return Rows(gain, torch.cat(left, dim=1), torch.cat(right))
    left, right = [gain[:, None] * matrix_of(start, pair, SIDE_B), *left], [matrix_of(start, pair, SIDE_A), *right]
    return Rows(gain * start[pair.name(SIDE_SCALE)].to(torch.float64), torch.cat(left, dim=1), torch.cat(right))


def stack_dora(pair: Pair, weighted: Weighted, averaged: State, start: State, setting: Setting) -> tuple[State, Missed]:
    """The exact mean weight as row scales and side factor; then a new pair, B = 0, m = the new rows' norms."""
    if pair.layer not in setting.base:
        raise AdapterError(f"The exact stack of DoRA needs the frozen weight of '{pair.layer}', which is not given.")
    weight = matrix(setting.base[pair.layer]).to(torch.float64)
    ideal = _mean_rows(pair, weighted, weight, start)
    u, values, v, tail = truncate(ideal.left, ideal.right, rank=len(matrix_of(start, pair, SIDE_A)))
    root = values.sqrt()
    kept = Rows(ideal.scale, u * root, root[:, None] * v)
    before = dora_rows(start, pair, weight, start=start)[0]
    made = {
        pair.name(SIDE_SCALE): kept.scale,
        pair.name(SIDE_B): kept.left,
        pair.name(SIDE_A): kept.right,
        pair.name(MAGNITUDE): kept.norms2(weight).sqrt(),
        **fresh_factors(pair, start, setting),
    }
    return made, Missed(tail, float(ideal.minus(before).norms2(weight).sum()))


def average_dora(
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
