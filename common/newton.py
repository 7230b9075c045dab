"""Exact federation: additive objectives whose loss, gradient and Hessian are sums over centers, and Newton's method.

Stratified Cox (Efron ties; a risk set never crosses a center), discrete-time hazard, logistic regression and ridge.
Because every round's step is computed from added sums, the federated fit is the centralized one; the only difference is
the order of additions. Everything is float64 numpy and pure: centers, server and simulations call the same code.

Efron 1977, JASA 72(359); Singer and Willett 1993, J. Educ. Stat. 18(2) (discrete-time hazard); analytic federated
learning, arXiv 2405.16240 (ridge from Gram sums).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from common.design import (
    Layout,
    LinearModel,
    Rows,
    Scaling,
    Sums,
    add,
    moment_sums,
    plain_rows,
    scaling_from,
    standardise,
)
from common.errors import UnknownName

LOSS, GRADIENT, HESSIAN = "newton.loss", "newton.gradient", "newton.hessian"
GRAM, MOMENT, CASES = "ridge.gram", "ridge.moment", "ridge.cases"
INTERCEPT_PENALTY = 1e-4  # keeps the intercept of a bin or class without any event finite
SETTLED = 1e-12  # a squared Newton decrement below it: one more full step is exact to rounding
CHUNK = 4_000_000  # cells of an events-by-cases matrix held at once
SLACK = 1e-11  # relative rise of the loss that rounding may cause near the optimum


# -------------------------------------------------------------------------------------------------- objectives


class Objective(Protocol):
    """A sum over cases, or over strata that never cross a center.

    Parameters are (C, Q): C problems that are solved side by side, each with its own Q numbers.
    """

    kind: str

    def shape(self, columns: int) -> tuple[int, int]:
        """(C, Q) for a design matrix of that many columns."""

    def penalised(self, columns: int) -> np.ndarray:
        """(Q,): 1 where the ridge penalty applies, less for intercepts."""

    def sums(self, x: np.ndarray, target: np.ndarray, beta: np.ndarray) -> Sums:
        """Loss (C,), gradient (C, Q) and Hessian (C, Q, Q) over one center's cases."""

    def split(self, beta: np.ndarray, columns: int) -> tuple[np.ndarray, np.ndarray]:
        """Weight (C', P) and bias (C'',) of the linear model."""


@dataclass(frozen=True)
class Cox:
    """Negative log partial likelihood of one stratum, Efron's ties. Target (n, 2): time and event."""

    kind = "cox"

    def shape(self, columns: int) -> tuple[int, int]:
        return 1, columns

    def penalised(self, columns: int) -> np.ndarray:
        return np.ones(columns)

    def split(self, beta: np.ndarray, columns: int) -> tuple[np.ndarray, np.ndarray]:
        return beta, np.zeros(1)

    def sums(self, x: np.ndarray, target: np.ndarray, beta: np.ndarray) -> Sums:
        loss, gradient, hessian = _cox(x, target[:, 0], target[:, 1], beta[0])
        return {LOSS: np.array([loss]), GRADIENT: gradient[None], HESSIAN: hessian[None]}


def _cox(x: np.ndarray, time: np.ndarray, event: np.ndarray, beta: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """One stratum, some events at a time so that memory stays bounded."""
    columns, events = x.shape[1], np.flatnonzero(event > 0)
    loss, gradient, hessian = 0.0, np.zeros(columns), np.zeros((columns, columns))
    if not len(events):
        return loss, gradient, hessian
    score = x @ beta
    score = score - score.max()
    weight = np.exp(score)
    gone = _share_gone(time, events)
    for first in range(0, len(events), max(1, CHUNK // len(x))):
        chosen = events[first : first + max(1, CHUNK // len(x))]
        tied = (time[None, :] == time[chosen, None]) & (event > 0)[None, :]
        # (E, n): how far each case is at risk when each event happens
        share = ((time[None, :] >= time[chosen, None]) - gone[chosen, None] * tied) * weight
        at_risk = np.maximum(share.sum(axis=1), np.finfo(float).tiny)
        share /= at_risk[:, None]
        mean = share @ x
        loss += float(np.log(at_risk).sum() - score[chosen].sum())
        gradient += mean.sum(axis=0) - x[chosen].sum(axis=0)
        hessian += (x * share.sum(axis=0)[:, None]).T @ x - mean.T @ mean
    return loss, gradient, hessian


def _share_gone(time: np.ndarray, events: np.ndarray) -> np.ndarray:
    """(n,): Efron's l / d for the l-th of d events at one time; each leaves the risk set one share after the other."""
    gone = np.zeros(len(time))
    for moment in np.unique(time[events]):
        together = events[time[events] == moment]
        gone[together] = np.arange(len(together)) / len(together)
    return gone


@dataclass(frozen=True)
class Hazard:
    """Discrete-time proportional odds: one intercept per grid time, one slope per column.

    Target (n, 2): grid index and event, as `common.tasks.prognosis.discretise` makes them.
    """

    bins: int
    kind = "hazard"

    def shape(self, columns: int) -> tuple[int, int]:
        return 1, self.bins + columns

    def penalised(self, columns: int) -> np.ndarray:
        return np.concatenate([np.full(self.bins, INTERCEPT_PENALTY), np.ones(columns)])

    def split(self, beta: np.ndarray, columns: int) -> tuple[np.ndarray, np.ndarray]:
        return np.repeat(beta[:, self.bins :], self.bins, axis=0), beta[0, : self.bins]

    def sums(self, x: np.ndarray, target: np.ndarray, beta: np.ndarray) -> Sums:
        index, event = target[:, 0], target[:, 1] > 0
        size = self.bins + x.shape[1]
        loss, gradient, hessian = 0.0, np.zeros(size), np.zeros((size, size))
        slopes = slice(self.bins, size)
        for bin_ in range(self.bins):
            at_risk = index >= bin_
            rows, happened = x[at_risk], (index[at_risk] == bin_) & event[at_risk]
            score = beta[0, bin_] + rows @ beta[0, slopes]
            loss += float((np.logaddexp(0, score) - happened * score).sum())
            chance = _sigmoid(score)
            residual, curve = chance - happened, chance * (1 - chance)
            gradient[bin_] += residual.sum()
            gradient[slopes] += residual @ rows
            hessian[bin_, bin_] += curve.sum()
            hessian[bin_, slopes] += curve @ rows
            hessian[slopes, slopes] += (rows * curve[:, None]).T @ rows
        hessian[slopes, : self.bins] = hessian[: self.bins, slopes].T
        return {LOSS: np.array([loss]), GRADIENT: gradient[None], HESSIAN: hessian[None]}


@dataclass(frozen=True)
class Logistic:
    """One logistic regression per class. Target (n, C): 1, 0, or negative where unknown."""

    classes: int = 1
    kind = "logistic"

    def shape(self, columns: int) -> tuple[int, int]:
        return self.classes, columns + 1

    def penalised(self, columns: int) -> np.ndarray:
        return np.concatenate([[INTERCEPT_PENALTY], np.ones(columns)])

    def split(self, beta: np.ndarray, columns: int) -> tuple[np.ndarray, np.ndarray]:
        return beta[:, 1:], beta[:, 0]

    def sums(self, x: np.ndarray, target: np.ndarray, beta: np.ndarray) -> Sums:
        each = [_logistic(_with_ones(x), target[:, c], beta[c]) for c in range(self.classes)]
        return {name: np.stack([part[i] for part in each]) for i, name in enumerate((LOSS, GRADIENT, HESSIAN))}


def _logistic(x: np.ndarray, label: np.ndarray, beta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x, label = x[label >= 0], label[label >= 0]
    score = x @ beta
    chance = _sigmoid(score)
    loss = np.array((np.logaddexp(0, score) - label * score).sum())
    return loss, (chance - label) @ x, (x * (chance * (1 - chance))[:, None]).T @ x


def _sigmoid(score: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(0, -score))


def _with_ones(x: np.ndarray) -> np.ndarray:
    return np.concatenate([np.ones((len(x), 1)), x], axis=1)


NEWTON_KINDS = ("cox", "hazard", "logistic")


def build_objective(kind: str, *, bins: int = 1, classes: int = 1) -> Objective:
    """An objective by its name. Raises UnknownName with the options."""
    known: dict[str, Callable[[], Objective]] = {
        "cox": Cox, "hazard": lambda: Hazard(bins), "logistic": lambda: Logistic(classes),
    }  # fmt: skip
    if kind not in known:
        raise UnknownName("Newton objective", kind, known)
    return known[kind]()


def newton_shapes(objective: Objective, columns: int) -> dict[str, tuple[int, ...]]:
    """What one round's sums may say."""
    problems, size = objective.shape(columns)
    return {LOSS: (problems,), GRADIENT: (problems, size), HESSIAN: (problems, size, size)}


# ------------------------------------------------------------------------------------------------- Newton's method


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


def begin(shape: tuple[int, int]) -> Search:
    """A search from zero."""
    problems = shape[0]
    zero = np.zeros(shape)
    return Search(zero, zero, zero, np.ones(problems), np.full(problems, np.inf), np.zeros(problems, dtype=bool))


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
            direction = _solve(sums[HESSIAN][problem] + np.diag(penalty), gradient)
            state["accepted"][problem], state["loss"][problem] = beta, loss
            state["direction"][problem], state["step"][problem] = direction, 1.0
            state["settled"][problem] = float(gradient @ direction) <= SETTLED
        state["asked"][problem] = state["accepted"][problem] - state["step"][problem] * state["direction"][problem]
        if state["step"][problem] < 1e-9:  # the direction is exhausted: the point is as good as rounding allows
            state["asked"][problem], state["settled"][problem] = state["accepted"][problem], True
    return replace(search, rounds=search.rounds + 1, **state)


def _solve(matrix: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """The minimum-norm solution: a column that nobody recorded, or that others imply, moves nothing by itself."""
    try:
        return cho_solve(cho_factor(matrix, lower=True), vector)
    except np.linalg.LinAlgError:
        return np.linalg.lstsq(matrix, vector, rcond=1e-12)[0]


def fit_newton(
    objective: Objective,
    layout: Layout,
    centers: Sequence[Rows],
    *,
    penalty: float = 1.0,
    max_rounds: int = 50,
) -> LinearModel:
    """The federated fit in one process: exactly what centers and server compute together.

    Args:
        centers: one entry per center, each a stratum of its own in a Cox model.
        penalty: of penalty / 2 * |weight| ** 2 on standardised columns, beside the summed loss.
    """
    scaling = scaling_from(add(moment_sums(layout, rows) for rows in centers))
    matrices = [standardise(layout, rows.values, rows.flags, scaling) for rows in centers]
    columns = len(layout.names)
    search, weights = begin(objective.shape(columns)), penalty * objective.penalised(columns)
    while not search.done and search.rounds < max_rounds:
        asked = search.asked
        parts = [objective.sums(x, rows.target, asked) for x, rows in zip(matrices, centers, strict=True)]
        search = advance(search, add(parts), penalty=weights)
    return model_of(objective, layout, scaling, search)


def fit_features(
    objective: Objective, features: Sequence[np.ndarray], targets: Sequence[np.ndarray], *, penalty: float = 1.0
) -> LinearModel:
    """`fit_newton` on plain features (n, P) and targets (n, T), one array per center."""
    layout = Layout(tuple(f"feature {i}" for i in range(features[0].shape[1])))
    rows = [plain_rows(x, y) for x, y in zip(features, targets, strict=True)]
    return fit_newton(objective, layout, rows, penalty=penalty)


def model_of(objective: Objective, layout: Layout, scaling: Scaling, search: Search) -> LinearModel:
    """The linear model at a search's current point; one round was spent on the moments."""
    weight, bias = objective.split(search.asked, len(layout.names))
    return LinearModel(layout, scaling, weight, bias, search.rounds + 1, search.done, search.loss)


# ---------------------------------------------------------------------------------------------------------- ridge


def ridge_sums(layout: Layout, rows: Rows) -> Sums:
    """Gram sums of raw columns [1, values, flags] with the targets (n, C), per class over its known targets (>= 0).

    Raw, so that means and scales follow from the sums themselves: one round is the whole fit, and subtracting a
    center's sums leaves exactly what the others alone would have sent.
    """
    x = _with_ones(np.concatenate([rows.values, rows.flags], axis=1))
    masks = (rows.target >= 0).T.astype(float)  # (C, n)
    signed = np.where(rows.target >= 0, 2 * rows.target - 1, 0.0).T  # (C, n): -1 or 1
    return {
        GRAM: np.stack([(x * mask[:, None]).T @ x for mask in masks]),
        MOMENT: signed @ x,
        CASES: masks.sum(axis=1),
    }


def ridge_shapes(values: int, flags: int, classes: int) -> dict[str, tuple[int, ...]]:
    """What `ridge_sums` may say."""
    size = 1 + values + flags
    return {GRAM: (classes, size, size), MOMENT: (classes, size), CASES: (classes,)}


def ridge_from_sums(layout: Layout, sums: Mapping[str, np.ndarray], *, penalty: float = 1.0) -> LinearModel:
    """The least-squares model of targets -1 and 1, from added `ridge_sums`.

    Means and scales come from the class with the most known targets, the same for all classes.
    """
    widest = int(np.argmax(sums[CASES]))
    gram = sums[GRAM][widest]
    scaling = _scaling_of_gram(layout, gram)
    turn = _standardising(layout, scaling)
    weights = penalty * np.concatenate([[INTERCEPT_PENALTY], np.ones(len(layout.names))])
    solved = np.stack([
        _solve(turn @ g @ turn.T + np.diag(weights), turn @ m)
        for g, m in zip(sums[GRAM], sums[MOMENT], strict=True)
    ])  # fmt: skip
    return LinearModel(layout, scaling, solved[:, 1:], solved[:, 0], rounds=1)


def _scaling_of_gram(layout: Layout, gram: np.ndarray) -> Scaling:
    """Moments of the recorded values, read off the Gram matrix of [1, values, flags]."""
    values = len(layout.values)
    flag_columns = [0 if i < 0 else 1 + values + i for i in layout.flag_of]
    positions = np.arange(1, 1 + values)
    return scaling_from({
        "moments.count": gram[0, flag_columns],
        "moments.sum": gram[0, positions],
        "moments.square": gram[positions, positions],
    })  # fmt: skip


def _standardising(layout: Layout, scaling: Scaling) -> np.ndarray:
    """The matrix that turns a raw row [1, values, flags] into [1, standardised columns]."""
    values, flags = len(layout.values), len(layout.flags)
    turn = np.zeros((1 + len(layout.names), 1 + values + flags))
    turn[0, 0] = 1.0
    for i, flag in enumerate(layout.flag_of):
        turn[1 + i, 1 + i] = 1 / scaling.scale[i]
        turn[1 + i, 0 if flag < 0 else 1 + values + flag] -= scaling.mean[i] / scaling.scale[i]
    if layout.with_flags:
        turn[1 + values :, 1 + values :] = np.eye(flags)
    return turn


def fit_ridge(layout: Layout, centers: Sequence[Rows], *, penalty: float = 1.0) -> LinearModel:
    """The federated ridge fit in one process."""
    return ridge_from_sums(layout, add(ridge_sums(layout, rows) for rows in centers), penalty=penalty)
