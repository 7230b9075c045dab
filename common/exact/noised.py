"""An exact fit on noised sums: how much one patient adds at most, and the search that goes on from what leaves.

The mechanism is sufficient-statistics perturbation, one Gaussian for each question. The first question is about zero:
the gradient there and the Hessian, which at zero is a bound of the Hessian everywhere (Boehning & Lindsay 1988), so it
is asked once. Every later question is a gradient alone. A row is at most ``clip`` long (`common.exact.ranges`), so one
patient, added or removed, changes a sum by at most `longest`, which public numbers give; the noise is that times the
plan's, and everything that follows is computed from what has left. Ridge is its first question.

How the questions of a step compose: ``rounds`` Gaussians at rate 1 (`common.privacy.plan`), epsilon and delta under
adding or removing one patient, at each center by itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np

from common.config.step import Step
from common.exact.objectives import GRADIENT, HESSIAN, Logistic, Objective, with_ones
from common.exact.search import solve
from common.exact.step import objective_of
from common.privacy.plan import Plan
from common.protocol.messages import Sums

SURE = 8.0  # standard deviations


class Ridge(Logistic):
    """Least squares of -1 and 1 as an objective of its own: its Hessian is the same everywhere, so one step is all."""

    kind = "ridge"

    def sums(self, x: np.ndarray, target: np.ndarray, beta: np.ndarray) -> Sums:
        z, known = with_ones(x), (target >= 0).T.astype(float)  # (C, n)
        wanted = np.where(target >= 0, 2 * target - 1, 0.0).T
        away = known * (beta @ z.T) - wanted
        return {GRADIENT: away @ z, HESSIAN: np.stack([(z * one[:, None]).T @ z for one in known])}


def noised_objective(step: Step) -> Objective:
    """What a step under ``privacy=noised_sums`` minimises."""
    found = objective_of(step)
    return Ridge(len(step.task.classes)) if found is None else found


def longest(objective: Objective, clip: float, *, round: int) -> dict[str, float]:
    """How long one patient's part of each sum is at most: a gradient, and the lower triangle of a Hessian.

    Args:
        clip: of a row, without the intercept's 1.
        round: 0 asks at zero, where a chance is one half.
    """
    problems, square = objective.shape(0)[0], 1 + clip**2
    if objective.kind == "hazard":  # at risk at each of b grid times, each with an intercept of its own
        bins = objective.shape(0)[1]
        gradient = math.sqrt(bins + (bins * clip) ** 2)
        hessian = math.sqrt(bins + 2 * bins * clip**2 + (bins * clip**2) ** 2)
    else:
        gradient, hessian = math.sqrt(problems * square), math.sqrt(problems) * square
    if objective.kind == "ridge":
        return {GRADIENT: gradient, HESSIAN: hessian}
    return {GRADIENT: gradient / 2, HESSIAN: hessian / 4} if round == 0 else {GRADIENT: gradient}


def noise_scales(objective: Objective, plan: Plan, *, round: int) -> dict[str, float]:
    """The standard deviation of the noise on each number of each sum. Sums that leave together share one Gaussian: each
    is one part of a vector, so its noise grows by the root of their number."""
    most = longest(objective, plan.clip, round=round)
    return {name: plan.noise * math.sqrt(len(most)) * bound for name, bound in most.items()}


def beyond(objective: Objective, plan: Plan, sums: Mapping[str, np.ndarray], *, round: int, patients: float) -> str:
    """What about one center's noised sums neither patients nor noise can make, as a phrase; empty where nothing.

    Args:
        patients: how many there are at most; each adds at most `longest`, and noise is longer than `SURE` beyond the
            root of its numbers less than once in 10^13 answers.
    """
    scales = noise_scales(objective, plan, round=round)
    for name, most in longest(objective, plan.clip, round=round).items():
        value = np.asarray(sums[name], np.float64)
        size = value.shape[-1]
        drawn, numbers = (
            (np.tril(value), value.size * (size + 1) / (2 * size)) if value.ndim == 3 else (value, value.size)
        )
        if not np.linalg.norm(drawn) <= patients * most + scales[name] * (math.sqrt(numbers) + SURE):
            return f"{name} is longer than {patients:g} patients and their noise make it"
    return ""


def raised(curvature: np.ndarray, floor: float) -> np.ndarray:
    """A noised Hessian (Q, Q) with no eigenvalue below what noise alone makes: it is a bound again, whatever the noise.

    Args:
        floor: the noise's own largest eigenvalue, about `spectral`.
    """
    values, vectors = np.linalg.eigh((curvature + curvature.T) / 2)
    found: np.ndarray = (vectors * np.maximum(values, floor)) @ vectors.T
    return found


def spectral(scales: Iterable[float], size: int) -> float:
    """The largest eigenvalue of symmetric Gaussian noise (size, size), a sum of noises of these scales."""
    return 2 * math.sqrt(size * sum(scale**2 for scale in scales))


def step_from(beta: np.ndarray, sums: Mapping[str, np.ndarray], *, penalty: np.ndarray, floor: float) -> np.ndarray:
    """The parameters (C, Q) after one answer.

    Args:
        sums: the gradient at ``beta`` and the Hessian at zero, added over centers.
        penalty: (Q,), of penalty / 2 * beta ** 2.
        floor: of `raised`.
    """
    return np.stack([
        own - solve(raised(hessian, floor) + np.diag(penalty), gradient + penalty * own)
        for own, gradient, hessian in zip(beta, sums[GRADIENT], sums[HESSIAN], strict=True)
    ])  # fmt: skip
