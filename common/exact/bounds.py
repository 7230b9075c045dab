"""What one center's sums of an exact fit can possibly be: no objective of ours is concave, no count is negative.

Newton sums are held against the center's own moments and its own earlier answers as well (`common.exact.room`).
"""

from __future__ import annotations

import numpy as np

from common.exact.columns import COUNT, SQUARE, SUM, Sums
from common.exact.objectives import HESSIAN, LOSS
from common.exact.ridge import CASES, GRAM, MOMENT
from common.exact.thresholds import ALL, MISSED, TRUE
from common.tasks.bounds import LARGEST

SLACK = 1e-6


def impossible_sums(sums: Sums, *, cases: float) -> str:
    """What about a center's finite answer no patients can make, as a phrase; empty where nothing is.

    Args:
        sums: moments, Newton sums or Gram sums.
        cases: training cases that the center registered.
    """
    for name in sorted(sums):
        if (np.abs(sums[name]) > LARGEST).any():
            return f"{name} is beyond {LARGEST:g}"
    if COUNT in sums:
        return _moments(sums, cases)
    if HESSIAN in sums:
        return _newton(sums)
    if TRUE in sums:
        return _scores(sums)
    return _gram(sums, cases) if GRAM in sums else ""


def _moments(sums: Sums, cases: float) -> str:
    count, total, square = sums[COUNT], sums[SUM], sums[SQUARE]
    if (count < 0).any() or (count > cases + SLACK).any():
        return f"{COUNT} is not between 0 and the {cases:g} registered cases"
    if (total**2 > count * square * (1 + SLACK) + SLACK).any():
        return f"{SQUARE} is smaller than {SUM} squared over {COUNT}"
    return ""


def _newton(sums: Sums) -> str:
    if (sums[LOSS] < -SLACK).any():
        return f"{LOSS} is negative"
    return next((problem for matrix in sums[HESSIAN] if (problem := _curved(HESSIAN, matrix))), "")


def _gram(sums: Sums, cases: float) -> str:
    own = sums[CASES]
    if (own < 0).any() or (own > cases + SLACK).any():
        return f"{CASES} is not between 0 and the {cases:g} registered cases"
    for matrix, moment, n in zip(sums[GRAM], sums[MOMENT], own, strict=True):
        if problem := _curved(GRAM, matrix):
            return problem
        if abs(matrix[0, 0] - n) > SLACK * (1 + n):
            return f"{GRAM}'s first cell is not the number of cases"
        if (moment**2 > n * np.diag(matrix) * (1 + SLACK) + SLACK).any():
            return f"{MOMENT} is larger than its columns allow"
    return ""


def _scores(sums: Sums) -> str:
    for name in (TRUE, ALL, MISSED):
        if (sums[name] < 0).any():
            return f"{name} is negative"
    if (sums[TRUE].sum(axis=1) > sums[ALL].sum(axis=1) * (1 + SLACK) + SLACK).any():
        return f"{TRUE} is more than {ALL}"
    return ""


def _curved(name: str, matrix: np.ndarray) -> str:
    """Symmetric and positive semi-definite, to rounding."""
    scale = 1 + float(np.abs(matrix).max(initial=0.0))
    if np.abs(matrix - matrix.T).max() > SLACK * scale:
        return f"{name} is not symmetric"
    lowest = float(np.linalg.eigvalsh((matrix + matrix.T) / 2)[0])
    return f"{name} is not positive semi-definite" if lowest < -SLACK * scale * len(matrix) else ""
