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
        if any(name not in sums for name in self.smaller) or (self.larger not in sums and self.larger != CASES):
            return False
        bound = plain(sums.get(self.larger, cases)) ** self.power
        total = plain(sums[self.smaller[0]])
        for name in self.smaller[1:]:
            total = total + plain(sums[name])
        total = np.sum(total, axis=self.over) if self.over else total
        return _is_beyond(self.factor * total, bound)


def plain(value: np.ndarray | float) -> np.ndarray | float:
    """A single number as Python's own, which is ten times as quick; an array in float64."""
    array = np.asarray(value, np.float64)
    return array if array.ndim else array.item()


def _is_beyond(total: np.ndarray | float, bound: np.ndarray | float) -> bool:
    """Whether any total is more than its bound and the slack."""
    excess = total - bound
    if isinstance(excess, float):
        return not excess <= SLACK * (1 + abs(float(bound)))
    if excess.max(initial=-np.inf) <= SLACK:  # the least that the slack can be; nearly always so
        return False
    return bool((excess > SLACK * (1 + np.abs(bound))).any())


def impossible(
    sums: Mapping[str, np.ndarray], *, bounds: Sequence[AtMost], signed: frozenset[str] = frozenset(), cases: float
) -> str:
    """The first thing about finite sums that no patients can make, as a phrase; empty where there is none.

    Args:
        signed: names of sums that may be negative.
        cases: how many cases the sums can be over at most.
    """
    if not _is_sane(sums, signed):
        for name in sorted(sums):
            value = np.asarray(sums[name], np.float64)
            if (np.abs(value) > LARGEST).any():
                return f"{name} is beyond {LARGEST:g}"
            if name not in signed and (value < -SLACK).any():
                return f"{name} is negative"
    if CASES in sums and float(np.asarray(sums[CASES]).sum()) > cases + SLACK:
        return f"cases is more than the {cases:g} that there are"
    return next((str(bound) for bound in bounds if bound.broken(sums, cases)), "")


def _is_sane(sums: Mapping[str, np.ndarray], signed: frozenset[str]) -> bool:
    """Whether no number is too large, or negative where none may be: all of them in one look."""
    positive = [value for name, value in sums.items() if name not in signed]
    either = [value for name, value in sums.items() if name in signed]
    low, high = _ends(positive)
    least, most = _ends(either)
    return low >= -SLACK and high <= LARGEST and least >= -LARGEST and most <= LARGEST


def _ends(values: Sequence[np.ndarray]) -> tuple[float, float]:
    """The least and the largest number of some arrays; of none, 0 and 0."""
    flat = flattened(values)
    return (float(flat.min()), float(flat.max())) if len(flat) else (0.0, 0.0)


def flattened(values: Sequence[np.ndarray]) -> np.ndarray:
    """All numbers of some arrays, in one row."""
    return np.concatenate([np.ravel(value) for value in values]) if values else np.zeros(0)
