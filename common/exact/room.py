"""What room a center's own moments leave its Newton sums, and what its earlier answers leave the next one.

With S_j = sum_i x_ij^2 over a center's n standardised rows, no score x_i b is larger than R(b) = sum_j |b_j| sqrt(S_j),
nor is the root of their summed squares. So a loss, each gradient entry and each curvature are bounded by what the
objective makes of scores. And every objective of ours is, for the rows that a center alters once for all questions of a
step (`client.privacy.rows`, `client.privacy.voxels`), one convex function of the parameters: between two points it lies
above the tangent of either and below a parabola. Boyd and Vandenberghe, Convex Optimization, sections 3.1.3 and 9.1.2.
Ridge has no such check: it is asked once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from common.exact.columns import COUNT, SQUARE, SUM, Sums
from common.exact.objectives import GRADIENT, HESSIAN, LARGEST_VALUE, LOSS, Objective

SLACK = 1e-6  # relative: sums are rounded, and frozen features are float32
CANCELLED = 1e-12  # of a column's squares: what rounding leaves of their sum about another mean


@dataclass(frozen=True)
class Reach:
    """What an objective makes of scores.

    Args:
        base: the largest loss at zero.
        push: the largest change of the loss by R(d), and of a gradient entry by sqrt(S_j).
        curve: the largest second derivative along d, by R(d) ** 2.
    """

    base: float
    push: float
    curve: float


def _cox(n: float, objective: Objective) -> Reach:
    """At most n events of at most n cases at risk; a weighted variance is at most a quarter of the squared range."""
    return Reach(n * math.log(n), n * math.sqrt(2), n / 2)


def _hazard(n: float, objective: Objective) -> Reach:
    bins = objective.shape(0)[1]
    return Reach(bins * n * math.log(2), bins * math.sqrt(n), bins / 4)


def _logistic(n: float, objective: Objective) -> Reach:
    return Reach(n * math.log(2), math.sqrt(n), 1 / 4)


REACH: dict[str, Callable[[float, Objective], Reach]] = {"cox": _cox, "hazard": _hazard, "logistic": _logistic}


@dataclass(frozen=True)
class Room:
    """One center's bounds in one fit.

    Args:
        size: (Q,) sqrt(S_j) at most, of every parameter's column.
        told: (Q,) whether the center's moments tell it; a column that too few cases have is hidden there.
        cases: rows at most.
    """

    reach: Reach
    size: np.ndarray
    told: np.ndarray
    cases: float

    def score(self, beta: np.ndarray) -> np.ndarray:
        """R (C,) of parameters (C, Q)."""
        return np.abs(beta) @ self.size

    def rounding(self, beta: np.ndarray) -> np.ndarray:
        """How large the scores (C,) are that are added up at a point, by the columns that the moments tell."""
        return math.sqrt(self.cases) * (np.abs(beta) @ np.where(self.told, self.size, 0.0))


def room_of(
    moments: Sums, *, objective: Objective, mean: np.ndarray, scale: np.ndarray, cases: float, columns: int
) -> Room:
    """The bounds of a center.

    Args:
        moments: its answer to the first question.
        mean, scale: (F,) of the standardisation that later questions name.
        cases: rows that it has at most, finite.
        columns: Q parameters of a problem: intercepts, values, flags.
    """
    n = max(cases, 1.0)
    count, total, square = moments[COUNT], moments[SUM], moments[SQUARE]
    spread = square - 2 * mean * total + count * mean**2
    rounded = CANCELLED * (square + 2 * np.abs(mean * total) + count * mean**2)
    most = n * LARGEST_VALUE**2  # a center answers no question at which a case is further away
    values = np.where(count > 0, np.minimum((np.maximum(spread, 0.0) + rounded) / scale**2, most), most)
    before = objective.shape(0)[1]
    after = columns - before - len(values)
    squares = np.concatenate([np.full(before, n), values, np.full(after, n)])
    told = np.concatenate([np.ones(before, bool), count > 0, np.ones(after, bool)])
    return Room(REACH[objective.kind](n, objective), np.sqrt(squares), told, n)


def out_of_proportion(sums: Sums, beta: np.ndarray, room: Room) -> str:
    """Newton sums beyond what the center's own moments allow at a point (C, Q), as a phrase; empty where not."""
    allowed = {
        LOSS: room.reach.base + room.reach.push * room.score(beta),
        GRADIENT: room.reach.push * room.size,
        HESSIAN: room.reach.curve * room.size**2,
    }
    found = {LOSS: sums[LOSS], GRADIENT: np.abs(sums[GRADIENT]), HESSIAN: np.abs(_diagonals(sums))}
    for name, most in allowed.items():
        if (found[name] > most * (1 + SLACK) + SLACK).any():
            return f"{name} is more than the center's own columns allow"
    return ""


@dataclass(frozen=True)
class Told:
    """One earlier answer: the point (C, Q), the loss (C,) and the gradient (C, Q) there."""

    beta: np.ndarray
    loss: np.ndarray
    gradient: np.ndarray


def told_at(beta: np.ndarray, sums: Mapping[str, np.ndarray]) -> Told:
    """What of an answer the next ones are held against."""
    return Told(np.asarray(beta, np.float64), sums[LOSS], sums[GRADIENT])


def no_convex_function(earlier: Sequence[Told], now: Told, room: Room) -> str:
    """Why an answer and one of the same center's earlier answers are of no one function, as a phrase; empty where they
    can be."""
    return next((problem for before in earlier if (problem := _between(before, now, room))), "")


def _between(a: Told, b: Told, room: Room) -> str:
    way, rise = b.beta - a.beta, b.loss - a.loss
    least, most = (np.sum(point.gradient * way, axis=1) for point in (a, b))
    parabola = least + room.reach.curve * room.score(way) ** 2 / 2
    sizes = np.abs(a.loss) + np.abs(b.loss) + np.sum((np.abs(a.gradient) + np.abs(b.gradient)) * np.abs(way), axis=1)
    slack = SLACK * (1 + sizes + room.rounding(a.beta) + room.rounding(b.beta))
    if (rise < least - slack).any():
        return f"{LOSS} lies below its own tangent at an earlier question"
    if (rise > most + slack).any():
        return f"{LOSS} at an earlier question lies below its tangent here"
    return f"{LOSS} rises more than the center's own columns allow" if (rise > parabola + slack).any() else ""


def _diagonals(sums: Sums) -> np.ndarray:
    return np.diagonal(sums[HESSIAN], axis1=1, axis2=2)
