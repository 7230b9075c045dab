"""What a center's update weighs, by its training cases: the server's rules and secure sums' centers weigh alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

WEIGHTS: dict[str, Callable[[int], float]] = {  # by `common.config.options.WEIGHTINGS`
    "n": float,
    "sqrt": lambda cases: float(cases) ** 0.5,
    "uniform": lambda cases: 1.0 if cases > 0 else 0.0,
}


def weight_of(federation: Any, cases: int) -> float:
    """An update's weight from the center's registered training cases; 1 where every center is one voice."""
    return WEIGHTS[getattr(federation, "weighting", "uniform")](cases)
