"""Newton's search: damped steps on summed losses, gradients and Hessians, one question to the centers at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from common.exact.columns import (
    Layout,
    LinearModel,
    Scaling,
)
from common.exact.objectives import GRADIENT, HESSIAN, LOSS, SLACK, Objective

SETTLED = 1e-12  # a squared Newton decrement below it: one more full step is exact to rounding


@dataclass(frozen=True)
class Search:
    """Where a damped Newton search stands: every problem's accepted point, its direction, and the next question.

    Args:
        asked: (C, Q) parameters at which the centers' sums are wanted next.
        accepted: (C, Q) the best point so far; ``loss`` (C,) is the penalised loss there, infinite at the start.
        direction: (C, Q) and ``step`` (C,): asked = accepted - step * direction.
        settled: (C,) problems that are solved; ``asked`` is their answer.
    """

    asked: np.ndarray
    accepted: np.ndarray
    direction: np.ndarray
    step: np.ndarray
    loss: np.ndarray
    settled: np.ndarray
    rounds: int = 0

    @property
    def done(self) -> bool:
        """Whether every problem is solved."""
        return bool(self.settled.all())


def begin(shape: tuple[int, ...], *, at: np.ndarray | None = None) -> Search:
    """A search from zero, or from parameters (C, Q) that another one found."""
    problems, zero = shape[0], np.zeros(shape)
    start = zero if at is None else np.array(at, np.float64)
    return Search(start, start, zero, np.ones(problems), np.full(problems, np.inf), np.zeros(problems, dtype=bool))


def strongest_first(penalties: Iterable[float]) -> list[float]:
    """Ridges in the order in which they are fitted, each once: a stronger one's solution is a start for the next."""
    return sorted({float(penalty) for penalty in penalties}, reverse=True)


def advance(search: Search, sums: Mapping[str, np.ndarray], *, penalty: np.ndarray) -> Search:
    """The search after one answer: a Newton step where the loss fell, half the step where it rose.

    Args:
        sums: loss, gradient and Hessian at ``search.asked``, added over centers, without the penalty.
        penalty: (Q,) of penalty / 2 * beta ** 2, in units of the summed loss.
    """
    state = {
        name: getattr(search, name).copy() for name in ("asked", "accepted", "direction", "step", "loss", "settled")
    }
    for problem in np.flatnonzero(~search.settled):
        beta = search.asked[problem]
        loss = float(sums[LOSS][problem] + (penalty * beta**2).sum() / 2)
        before = search.loss[problem]
        if not np.isfinite(loss) or loss > before + SLACK * (1 + abs(before)):
            state["step"][problem] /= 2
        else:
            gradient = sums[GRADIENT][problem] + penalty * beta
            direction = solve(sums[HESSIAN][problem] + np.diag(penalty), gradient)
            state["accepted"][problem], state["loss"][problem] = beta, loss
            state["direction"][problem], state["step"][problem] = direction, 1.0
            state["settled"][problem] = abs(float(gradient @ direction)) <= SETTLED  # an ascent is no end
        state["asked"][problem] = state["accepted"][problem] - state["step"][problem] * state["direction"][problem]
        if state["step"][problem] < 1e-9:  # the direction is exhausted: the point is as good as rounding allows
            state["asked"][problem], state["settled"][problem] = state["accepted"][problem], True
    return replace(search, rounds=search.rounds + 1, **state)


def solve(matrix: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """The minimum-norm solution: a column that nobody recorded, or that others imply, moves nothing by itself."""
    try:
        return cho_solve(cho_factor(matrix, lower=True), vector)
    except np.linalg.LinAlgError:
        return np.linalg.lstsq(matrix, vector, rcond=1e-12)[0]


def model_of(objective: Objective, layout: Layout, scaling: Scaling, search: Search) -> LinearModel:
    """The linear model at a search's current point; one round was spent on the moments."""
    weight, bias = objective.split(search.asked, len(layout.names))
    return LinearModel(layout, scaling, weight, bias, search.rounds + 1, search.done, search.loss)
