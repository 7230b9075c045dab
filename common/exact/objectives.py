"""What a Newton fit minimises: the Cox, hazard and logistic losses, each with its gradient and Hessian as sums."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from common.errors import UnknownName
from common.protocol.messages import Sums

LOSS, GRADIENT, HESSIAN = "newton.loss", "newton.gradient", "newton.hessian"
INTERCEPT_PENALTY = 1e-4  # keeps the intercept of a bin or class without any event finite
FAINT = 1e-280  # weight of a risk set, beside its center's highest, below which it is told against its own highest
CHUNK = 4_000_000  # cells of an events-by-cases matrix held at once
LARGEST_VALUE = 1000.0  # standard deviations from the mean that a center answers at; a server may rely on it
SLACK = 1e-11  # relative rise of the loss that rounding may cause near the optimum


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

    def weights(self, x: np.ndarray, target: np.ndarray, beta: np.ndarray) -> Iterator[np.ndarray]:
        """How much each case (n,) weighs in each sum that stands alone: a class's, a grid time's, the stratum's."""


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

    def weights(self, x: np.ndarray, target: np.ndarray, beta: np.ndarray) -> Iterator[np.ndarray]:
        if (target[:, 1] > 0).any():
            score = x @ beta[0]
            yield np.exp(score - score.max())

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
        risk = (time[None, :] >= time[chosen, None]) - gone[chosen, None] * tied
        share = risk * weight
        at_risk, highest = share.sum(axis=1), np.zeros(len(chosen))
        for event_ in np.flatnonzero(at_risk < FAINT):  # far points only: such a set's weights would be no numbers
            highest[event_] = score[risk[event_] > 0].max()
            share[event_] = risk[event_] * np.exp(np.minimum(score - highest[event_], 0.0))
            at_risk[event_] = share[event_].sum()
        share /= at_risk[:, None]
        mean = share @ x
        loss += float(np.log(at_risk).sum() - score[chosen].sum() + highest.sum())
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

    def weights(self, x: np.ndarray, target: np.ndarray, beta: np.ndarray) -> Iterator[np.ndarray]:
        slopes = x @ beta[0, self.bins :]
        for bin_ in range(self.bins):
            yield np.where(target[:, 0] >= bin_, _curvature(beta[0, bin_] + slopes), 0.0)

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

    def weights(self, x: np.ndarray, target: np.ndarray, beta: np.ndarray) -> Iterator[np.ndarray]:
        for c in range(self.classes):
            yield np.where(target[:, c] >= 0, _curvature(with_ones(x) @ beta[c]), 0.0)

    def sums(self, x: np.ndarray, target: np.ndarray, beta: np.ndarray) -> Sums:
        each = [_logistic(with_ones(x), target[:, c], beta[c]) for c in range(self.classes)]
        return {name: np.stack([part[i] for part in each]) for i, name in enumerate((LOSS, GRADIENT, HESSIAN))}


def _logistic(x: np.ndarray, label: np.ndarray, beta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x, label = x[label >= 0], label[label >= 0]
    score = x @ beta
    chance = _sigmoid(score)
    loss = np.array((np.logaddexp(0, score) - label * score).sum())
    return loss, (chance - label) @ x, (x * (chance * (1 - chance))[:, None]).T @ x


def _sigmoid(score: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(0, -score))


def _curvature(score: np.ndarray) -> np.ndarray:
    chance = _sigmoid(score)
    return chance * (1 - chance)


def with_ones(x: np.ndarray) -> np.ndarray:
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
