"""What a task's sums can possibly be: inequalities that hold for any patients, so that a lie has to stay plausible.

A center's sums cannot be checked against its patients, but no patient makes an intersection larger than the volumes
that meet, or more concordant pairs than comparable ones. A task declares such bounds beside its shapes; sums are never
negative unless it says so, and none of them is astronomically large.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

CASES = "cases"  # in a bound: how many cases the sums are over, where they do not say it themselves
LARGEST = 1e15  # no sum over a hospital's patients comes near; two of them still add up
SLACK = 1e-6  # relative and absolute: sums are rounded


@dataclass(frozen=True)
class AtMost:
    """factor * (the sums ``smaller``, added) <= larger ** power, cell by cell, or the sum over ``over``'s axes."""

    smaller: tuple[str, ...]
    larger: str
    factor: float = 1.0
    power: int = 1
    over: tuple[int, ...] = ()

    def __str__(self) -> str:
        left = " + ".join(self.smaller)
        left = left if self.factor == 1 else f"{self.factor:g} x ({left})"
        return f"{left} is more than {self.larger}{f' ** {self.power}' if self.power > 1 else ''}"

    def broken(self, sums: Mapping[str, np.ndarray], cases: float) -> bool:
        """Whether the sums cannot be; a bound on a sum that is not there holds."""
        if any(name not in sums for name in self.smaller):
            return False
        larger = np.asarray(sums.get(self.larger, cases), np.float64)
        if self.larger not in sums and self.larger != CASES:
            return False
        total = sum(np.asarray(sums[name], np.float64) for name in self.smaller)
        total = np.asarray(total).sum(axis=self.over) if self.over else np.asarray(total)
        bound = larger**self.power
        return bool((self.factor * total > bound + SLACK * (1 + np.abs(bound))).any())


def impossible(
    sums: Mapping[str, np.ndarray], *, bounds: Sequence[AtMost], signed: frozenset[str] = frozenset(), cases: float
) -> str:
    """The first thing about finite sums that no patients can make, as a phrase; empty where there is none.

    Args:
        signed: names of sums that may be negative.
        cases: how many cases the sums can be over at most.
    """
    for name in sorted(sums):
        value = np.asarray(sums[name], np.float64)
        if (np.abs(value) > LARGEST).any():
            return f"{name} is beyond {LARGEST:g}"
        if name not in signed and (value < -SLACK).any():
            return f"{name} is negative"
    if CASES in sums and float(np.asarray(sums[CASES]).sum()) > cases + SLACK:
        return f"cases is more than the {cases:g} that there are"
    return next((str(bound) for bound in bounds if bound.broken(sums, cases)), "")
