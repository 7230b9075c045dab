"""What one center's sums of an exact fit can possibly be: no objective of ours is concave, no count is negative.

Gradients and Hessians are held against the center's own moments as well: with S_j = sum_i x_ij^2 over its standardised
columns, no residual sum over n cases is larger than 2 n sqrt(S_j) a risk set, and no Hessian's trace larger than
n sum_j S_j.
"""

from __future__ import annotations

import numpy as np

from common.exact.columns import COUNT, SQUARE, SUM, Sums
from common.exact.objectives import GRADIENT, HESSIAN, LOSS
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


def out_of_proportion(
    sums: Sums, moments: Sums, *, scale: np.ndarray, mean: np.ndarray, cases: float, sets: int
) -> str:
    """Newton sums beyond what the center's own moments allow, as a phrase; empty where they are not.

    Args:
        moments: this center's answer to the first question.
        mean, scale: (F,) of the standardisation that the second question named.
        sets: sums over cases that one case is part of (the grid's bins, for the discrete hazard; else 1).
    """
    count, total, square = moments[COUNT], moments[SUM], moments[SQUARE]
    if (count == 0).any():  # a column that too few cases have is hidden in the moments, not in what follows
        return ""
    spread = np.maximum(square - 2 * mean * total + count * mean**2, 0.0) / scale**2
    largest = float(spread.sum()) + (len(spread) + sets) * cases  # flags and intercepts are at most one a case
    trace, gradient = (float(np.abs(f).max(initial=0.0)) for f in (_traces(sums), sums[GRADIENT]))
    if trace > sets * max(cases, 1.0) * largest * (1 + SLACK) + SLACK:
        return f"{HESSIAN}'s trace is more than the center's own columns allow"
    if gradient > 2 * sets * max(cases, 1.0) * np.sqrt(largest) * (1 + SLACK) + SLACK:
        return f"{GRADIENT} is more than the center's own columns allow"
    return ""


def _traces(sums: Sums) -> np.ndarray:
    return np.trace(sums[HESSIAN], axis1=1, axis2=2)
