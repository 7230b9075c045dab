"""Sums of an exact fit with noise on them: what leaves in the place of moments, Gram sums, gradients and Hessians.

No rule about a few patients applies here, for none could be kept without looking at them: everybody is in every sum,
each patient's part is at most a public bound long, and the Gaussian that is added hides whether a patient took part.
A step has as many questions as it has ``rounds``; the noise is for so many, and no more of them are answered.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from client.privacy.path import POINT
from client.privacy.streams import Stream
from common.errors import PolicyRefusal
from common.exact.noised import longest, noise_scales
from common.exact.objectives import GRADIENT, HESSIAN, Objective
from common.exact.step import BETA
from common.privacy.plan import Plan
from common.protocol.messages import Order, Sums


def point_of(order: Order, objective: Objective, columns: int) -> np.ndarray:
    """The parameters (C, Q) that the order asks about; zero in the first question. Raises PolicyRefusal where they are
    none, or the question is beyond the step's rounds."""
    shape, step = objective.shape(columns), order.step
    if not 0 <= order.round < step.rounds:
        raise PolicyRefusal(POINT, f"Step '{step.name}' has {step.rounds} questions, from 0; this is {order.round}.")
    beta = np.zeros(shape) if order.round == 0 else np.asarray(order.known.get(BETA, np.nan), np.float64)
    if beta.shape != shape or not np.isfinite(beta).all():
        raise PolicyRefusal(POINT, f"{BETA} is not {'x'.join(map(str, shape))} finite numbers.")
    return beta


def noised_sums(
    objective: Objective, x: np.ndarray, target: np.ndarray, beta: np.ndarray, *, round: int,
    groups: Sequence[Sequence[int]], plan: Plan, noise: Stream,
) -> Sums:  # fmt: skip
    """The answer to one question: each patient's part as short as it must be, added up, with the plan's noise.

    Args:
        x: (n, P) columns in public ranges, of all training cases.
        target: (n, T).
        groups: the rows of each patient.
        noise: a stream that nobody else knows.
    """
    most = longest(objective, plan.clip, round=round)
    total = {name: np.zeros(shape) for name, shape in _shapes(objective, x.shape[1]).items() if name in most}
    for rows in groups:
        own = objective.sums(x[list(rows)], target[list(rows)], beta)
        for name, bound in most.items():
            total[name] += short(own[name], bound)
    scales = noise_scales(objective, plan, round=round)
    return {name: total[name] + _noise(total[name].shape, scales[name], noise) for name in sorted(total)}


def _shapes(objective: Objective, columns: int) -> dict[str, tuple[int, ...]]:
    problems, size = objective.shape(columns)
    return {GRADIENT: (problems, size), HESSIAN: (problems, size, size)}


def short(part: np.ndarray, bound: float) -> np.ndarray:
    """One patient's part, at most that long; nothing where it is not finite. Rounding apart, a part of public ranges is
    short by itself, and a second case of the same patient is what this is for."""
    length = float(np.sqrt(np.square(part).sum()))
    if not length < float("inf"):
        return np.zeros_like(part)
    return part * min(1.0, bound / length) if length > 0 else part


def _noise(shape: tuple[int, ...], scale: float, stream: Stream) -> np.ndarray:
    """Gaussian noise; of a matrix the lower triangle is drawn and mirrored, since that is what says something."""
    drawn = scale * stream.normals(int(np.prod(shape))).reshape(shape)
    if len(shape) < 3:
        return drawn
    lower: np.ndarray = np.tril(drawn)
    mirrored: np.ndarray = lower + np.swapaxes(np.tril(drawn, -1), -1, -2)
    return mirrored
