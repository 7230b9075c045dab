"""The path of an exact fit, checked on site: a server may search for the best parameters, not point at a patient.

Newton's method asks for moments, then for loss, gradient and Hessian at one point after the other. At a point of the
server's choosing the Hessian can be one patient's row (a steep score, a saturated one). So the moments come first, the
standardisation stays, parameters are finite and bounded, questions are counted, and at every point enough patients must
still have a weight: their effective number (sum of w)^2 / sum of w^2 has to be more than half the minimum.

Sums without noise and without secure aggregation still trust the coordinator not to combine all of these answers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from client.vault.lock import alone
from common.errors import PolicyRefusal
from common.exact.columns import Layout, Rows, Scaling, standardise
from common.exact.objectives import LARGEST_VALUE, Objective
from common.exact.step import BETA, MEAN, SCALE
from common.protocol.messages import Order
from common.store.sealed import read_sealed, write_sealed

PATH, POINT, QUESTIONS, WEIGHT = "declined.path", "declined.point", "declined.questions", "declined.weight"
LARGEST_BETA = 30.0  # of standardised columns: an odds ratio of 10^13 a standard deviation
STANDARDISATIONS = 8  # a fit begins again when a center leaves it, with another mean and scale
MOST_QUESTIONS = 1000  # of one step, over all its standardisations
COUNTS = "questions.json"  # by column or target, how many points were answered about it, over every step and run
LOST_COUNT = "restore it from a backup of the vault: without it the policy's maximum_questions is not kept."


@dataclass(frozen=True)
class Point:
    """Where sums are asked."""

    scaling: Scaling
    beta: np.ndarray

    @property
    def standardisation(self) -> str:
        """What must not change within a fit."""
        return _digest(self.scaling.mean, self.scaling.scale)

    @property
    def question(self) -> str:
        """What tells one question from another."""
        return _digest(self.scaling.mean, self.scaling.scale, self.beta)


def point_of(known: Mapping[str, np.ndarray], layout: Layout, objective: Objective) -> Point:
    """The order's point. Raises PolicyRefusal where it is none: another shape, not finite, out of bounds."""
    wanted = {MEAN: (len(layout.values),), SCALE: (len(layout.values),), BETA: objective.shape(len(layout.names))}
    for name, shape in wanted.items():
        if name not in known or np.shape(known[name]) != shape or not np.isfinite(known[name]).all():
            raise PolicyRefusal(POINT, f"{name} is not {'x'.join(map(str, shape))} finite numbers.")
    mean, scale, beta = (np.asarray(known[name], np.float64) for name in (MEAN, SCALE, BETA))
    if (scale <= 0).any():
        raise PolicyRefusal(POINT, f"{SCALE} is not positive in {int((scale <= 0).sum())} columns.")
    if (np.abs(beta) > LARGEST_BETA).any():
        raise PolicyRefusal(
            POINT,
            f"{BETA} is as large as {np.abs(beta).max():.3g}; exact sums are answered up to {LARGEST_BETA:g}: at "
            "a steeper point they are those of one patient.",
        )
    return Point(Scaling(mean, scale), beta)


def check_weight(
    point: Point,
    layout: Layout,
    rows: Rows,
    objective: Objective,
    *,
    minimum: int,
    patient: np.ndarray | None = None,
) -> None:
    """Raise PolicyRefusal where at this point the sums would be of fewer patients than half the minimum and one.

    Args:
        patient: (n,) whose row each is, where rows are voxels: a patient weighs what all of the own rows do.
    """
    x = standardise(layout, rows.values, rows.flags, point.scaling)
    if (np.abs(x) > LARGEST_VALUE).any():
        raise PolicyRefusal(POINT, f"{SCALE} puts a patient {np.abs(x).max():.3g} deviations from the mean.")
    needed = (minimum + 1) / 2
    for weight in objective.weights(x, rows.target, point.beta):
        effective = effective_number(weight if patient is None else np.bincount(patient, weights=weight))
        if 0 < effective < needed:
            raise PolicyRefusal(
                WEIGHT,
                f"At these parameters the sums would be of {effective:.1f} patients in effect; policy.minimum_cell is "
                f"{minimum}, so more than half of that many must have a weight.",
            )


def effective_number(weight: np.ndarray) -> float:
    """How many equally weighted patients these weights are worth; 0 without any."""
    square = float((weight**2).sum())
    return float(weight.sum() ** 2) / square if square > 0 else 0.0


def walk(vault: Path, order: Order, point: Point | None, *, about: frozenset[str], most: int) -> None:
    """Put one more question on the step's path: the moments (None), or a point, which the cohort counts, too.

    Step and run are names that the server gives, so a path has a bound and so has the cohort.

    Args:
        about: columns and targets of which the point's sums are.
        most: points that the cohort answers about any one of these, whatever the step and the run.

    Raises:
        PolicyRefusal: a question out of order, another standardisation, too many questions.
        DamagedFile: the path, or the cohort's count, is damaged.
    """
    path = vault / "exact" / f"{_digest_text(order.step.name, order.run or str(order.seed))}.json"
    with alone(path):
        before = _read(path)
        after = _next(before, order, point)
        if after == before:
            return
        if point is not None:
            _count(vault, about, most)
        write_sealed(path, after)


def _count(vault: Path, about: frozenset[str], most: int) -> None:
    """One more point of each of these, on disk before it is answered. Raises PolicyRefusal beyond the most."""
    path = vault / "exact" / COUNTS
    with alone(path):
        asked: dict[str, int] = read_sealed(path, remedy=LOST_COUNT) if path.exists() else {}
        often = sorted(one for one in about if asked.get(one, 0) >= most)
        if often:
            raise PolicyRefusal(
                QUESTIONS,
                f"Exact fits have asked for sums about {often[0]} at {asked.get(often[0], 0)} points, over every step "
                f"and run; policy.maximum_questions is {most}.",
            )
        write_sealed(path, asked | {one: asked.get(one, 0) + 1 for one in about})


def _next(path: dict[str, list[str]], order: Order, point: Point | None) -> dict[str, list[str]]:
    fits, asked = path["fits"], path["asked"]
    if point is None:
        return {**path, "moments": ["asked"]}
    if point.question in asked:
        return path
    if not path["moments"]:
        raise PolicyRefusal(PATH, f"Round {order.round} of an exact fit comes before its moments (round 0).")
    if not fits or point.standardisation != fits[-1]:
        if order.round != 1 or point.beta.any():
            raise PolicyRefusal(
                PATH, f"Round {order.round} of an exact fit changes its mean and scale, or does not begin at zero."
            )
        if len(fits) >= STANDARDISATIONS:
            raise PolicyRefusal(QUESTIONS, f"The step was begun {len(fits)} times with other means and scales.")
        fits = [*fits, point.standardisation]
    if len(asked) >= MOST_QUESTIONS:
        raise PolicyRefusal(QUESTIONS, f"The step has asked {len(asked)} different questions, as many as it may.")
    return {**path, "fits": fits, "asked": [*asked, point.question]}


def _read(path: Path) -> dict[str, list[str]]:
    if not path.exists():
        return {"moments": [], "fits": [], "asked": []}
    found: dict[str, list[str]] = read_sealed(path, remedy="remove it: the fit then begins again.")
    return found


def _digest(*arrays: np.ndarray) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array, np.float64).tobytes())
    return digest.hexdigest()[:32]


def _digest_text(*texts: str) -> str:
    return hashlib.sha256("\x1f".join(texts).encode()).hexdigest()[:16]
