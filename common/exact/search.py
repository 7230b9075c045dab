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
SHORTEST = 1e-9  # of a Newton step: where the loss falls along no longer part of it, the direction is exhausted
ROUNDING = 10 * SLACK  # of the loss: a squared decrement below it promises less than a loss can show


@dataclass(frozen=True)
class Search:
    """Where a damped Newton search stands: every problem's accepted point, its direction, and the next question.

    Args:
        asked: (C, Q) parameters at which the centers' sums are wanted next.
        accepted: (C, Q) the best point so far; ``loss`` (C,) is the penalised loss there, infinite at the start.
        direction: (C, Q) and ``step`` (C,): asked = accepted - step * direction.
        decrement: (C,) squared Newton decrement at the accepted point, infinite at the start.
        settled: (C,) problems that are solved; ``asked`` is their answer.
        failed: (C,) problems whose loss does not fall along their direction, however short the step: what was told is
            of no function that a Newton step can lead down.
    """

    asked: np.ndarray
    accepted: np.ndarray
    direction: np.ndarray
    step: np.ndarray
    loss: np.ndarray
    decrement: np.ndarray
    settled: np.ndarray
    failed: np.ndarray
    rounds: int = 0

    @property
    def done(self) -> bool:
        """Whether every problem is solved."""
        return bool(self.settled.all())

    @property
    def is_over(self) -> bool:
        """Whether every problem is solved or has failed: nothing is left to ask."""
        return bool((self.settled | self.failed).all())


_STATE = ("asked", "accepted", "direction", "step", "loss", "decrement", "settled", "failed")


def begin(shape: tuple[int, ...], *, at: np.ndarray | None = None) -> Search:
    """A search from zero, or from parameters (C, Q) that another one found."""
    problems, zero = shape[0], np.zeros(shape)
    start = zero if at is None else np.array(at, np.float64)
    unknown, no = np.full(problems, np.inf), np.zeros(problems, dtype=bool)
    return Search(start, start, zero, np.ones(problems), unknown, unknown, no, no)


def strongest_first(penalties: Iterable[float]) -> list[float]:
    """Ridges in the order in which they are fitted, each once: a stronger one's solution is a start for the next."""
    return sorted({float(penalty) for penalty in penalties}, reverse=True)


def advance(search: Search, sums: Mapping[str, np.ndarray], *, penalty: np.ndarray) -> Search:
    """The search after one answer: a Newton step where the loss fell, half the step where it rose.

    Args:
        sums: loss, gradient and Hessian at ``search.asked``, added over centers, without the penalty.
        penalty: (Q,) of penalty / 2 * beta ** 2, in units of the summed loss.
    """
    state = {name: getattr(search, name).copy() for name in _STATE}
    for problem in np.flatnonzero(~(search.settled | search.failed)):
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
            state["decrement"][problem] = abs(float(gradient @ direction))  # an ascent is no end
            state["settled"][problem] = state["decrement"][problem] <= SETTLED
        state["asked"][problem] = state["accepted"][problem] - state["step"][problem] * state["direction"][problem]
        if state["step"][problem] < SHORTEST:  # an end only where the point is as good as rounding allows
            state["asked"][problem] = state["accepted"][problem]
            is_best = state["decrement"][problem] <= ROUNDING * (1 + abs(state["loss"][problem]))
            state["settled" if is_best else "failed"][problem] = True
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
