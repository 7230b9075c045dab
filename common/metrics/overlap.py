"""Overlap of volumes, and means that skip what is not defined."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import stdtrit  # the quantile of scipy.stats.t, whose import takes half a second


def dsc_agg(intersection: np.ndarray, volumes: np.ndarray) -> list[float | None]:
    """HECKTOR's aggregated Dice per structure: 2 sum |A and B| / sum (|A| + |B|), over all cases.

    Args:
        intersection, volumes: (S,) sums over cases; volumes is predicted plus true. Any one unit of volume.
    """
    return [ratio(2 * float(i), float(v)) for i, v in zip(intersection, volumes, strict=True)]


def dice_scores(both: np.ndarray, volumes: np.ndarray) -> np.ndarray:
    """Dice of each case and structure; 0 where there is neither truth nor prediction.

    Args:
        both, volumes: of one shape; volumes is predicted plus true.
    """
    return np.divide(2 * both, volumes, out=np.zeros_like(volumes), where=volumes > 0)


def mean_defined(values: Sequence[float | None]) -> float | None:
    """Mean of the values that are defined; None where none is."""
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if defined else None


def ratio(numerator: float, denominator: float) -> float | None:
    """The quotient; None where the denominator is not positive."""
    return numerator / denominator if denominator > 0 else None


FEWEST = 5  # patients; below, no interval is claimed


def mean_interval(total: float, squares: float, n: float, *, level: float = 0.95) -> tuple[float, float] | None:
    """Student's interval of a mean of values in [0, 1], clipped to it; None of fewer than five patients.

    Args:
        total, squares: sums over n patients of a value and of its square.
    """
    if n < FEWEST:
        return None
    mean = total / n
    variance = max(0.0, squares - n * mean**2) / (n - 1)
    half = float(stdtrit(n - 1, (1 + level) / 2)) * (variance / n) ** 0.5
    return max(0.0, mean - half), min(1.0, mean + half)
