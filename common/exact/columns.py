"""Design matrices that every center builds alike: recorded values with a known flag each, standardised from sums.

A value that is not recorded is zero, before and after standardisation (so it says "average"), and its flag is zero: a
variable that a center never recorded is a column of zeros there and has no gradient. Moments are sums over the recorded
values, so centers can add them; which columns exist never depends on a center.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from common.protocol.messages import Sums

ALWAYS = -1  # the flag of a column that every case has, such as a feature of an image that is there
COUNT, SUM, SQUARE = "moments.count", "moments.sum", "moments.square"


@dataclass(frozen=True)
class Layout:
    """Which columns there are.

    Args:
        values: names of the F value columns.
        flags: names of the V known flags.
        flag_of: (F,) position of each value's flag, or `ALWAYS`.
        with_flags: whether the flags are inputs too. They reveal the center where whole centers never record a
            variable; without them an unknown value is only "average".
    """

    values: tuple[str, ...]
    flags: tuple[str, ...] = ()
    flag_of: tuple[int, ...] = ()
    with_flags: bool = True

    def __post_init__(self) -> None:
        if not self.flag_of:
            object.__setattr__(self, "flag_of", (ALWAYS,) * len(self.values))

    @property
    def names(self) -> tuple[str, ...]:
        """The P columns of a standardised matrix."""
        return self.values + (tuple(f"{flag}:known" for flag in self.flags) if self.with_flags else ())

    def known(self, flags: np.ndarray) -> np.ndarray:
        """(n, F): 1 where the value is recorded, from flags (n, V)."""
        padded = np.concatenate([flags, np.ones((len(flags), 1))], axis=1)  # position -1 is the column of ones
        return padded[:, list(self.flag_of)]

    def concat(self, other: Layout) -> Layout:
        """The columns of both, this one's first."""
        shifted = tuple(i if i == ALWAYS else i + len(self.flags) for i in other.flag_of)
        return Layout(
            self.values + other.values, self.flags + other.flags, self.flag_of + shifted, with_flags=self.with_flags
        )


@dataclass(frozen=True)
class Rows:
    """One center's cases as numbers, float64.

    Args:
        values: (n, F), zero where not recorded.
        flags: (n, V), 1 where recorded.
        target: (n, T); what the columns mean, the objective says.
    """

    values: np.ndarray
    flags: np.ndarray
    target: np.ndarray

    def __len__(self) -> int:
        return len(self.values)

    def take(self, chosen: np.ndarray) -> Rows:
        """The cases at these positions, or where this mask is true."""
        return Rows(self.values[chosen], self.flags[chosen], self.target[chosen])


def plain_rows(values: np.ndarray, target: np.ndarray) -> Rows:
    """Cases whose values are all recorded, such as frozen features."""
    values, target = np.asarray(values, np.float64), np.asarray(target, np.float64)
    return Rows(values, np.zeros((len(values), 0)), target.reshape(len(values), -1))


def pooled(parts: Sequence[Rows]) -> Rows:
    """Several centers' cases as one table; for simulations only."""
    return Rows(*(np.concatenate([getattr(p, name) for p in parts]) for name in ("values", "flags", "target")))


@dataclass(frozen=True)
class Scaling:
    """Mean (F,) and scale (F,) of the recorded values; a column without spread has scale 1."""

    mean: np.ndarray
    scale: np.ndarray


def moment_sums(layout: Layout, rows: Rows) -> Sums:
    """Count, sum and sum of squares (F,) of each value over the cases that have it."""
    known = layout.known(rows.flags)
    return {COUNT: known.sum(axis=0), SUM: rows.values.sum(axis=0), SQUARE: (rows.values**2).sum(axis=0)}


def moment_shapes(values: int) -> dict[str, tuple[int, ...]]:
    """What `moment_sums` may say of that many value columns."""
    return dict.fromkeys((COUNT, SUM, SQUARE), (values,))


def scaling_from(sums: Sums) -> Scaling:
    """Mean and standard deviation from added moments."""
    count = np.maximum(sums[COUNT], 1.0)
    mean = sums[SUM] / count
    variance = np.maximum(sums[SQUARE] / count - mean**2, 0.0)
    noise = 1e-12 * sums[SQUARE] / count  # what rounding leaves of a constant column
    return Scaling(mean, np.where(variance > noise, np.sqrt(variance), 1.0))


def standardise(layout: Layout, values: np.ndarray, flags: np.ndarray, scaling: Scaling) -> np.ndarray:
    """(n, P): standardised values, zero where not recorded, then the flags if they are inputs."""
    columns = (values - scaling.mean * layout.known(flags)) / scaling.scale
    return np.concatenate([columns, flags], axis=1) if layout.with_flags else columns


def add(parts: Iterable[Sums]) -> Sums:
    """Sums of several centers, added name by name in the given order. Raises ValueError without any."""
    total: Sums = {}
    for part in parts:
        for name, value in part.items():
            total[name] = total[name] + value if name in total else np.array(value, np.float64)
    if not total:
        raise ValueError("There are no sums to add.")
    return total


@dataclass(frozen=True)
class LinearModel:
    """A fitted linear model on raw rows.

    Args:
        scaling: of the layout's values.
        weight: (C, P).
        bias: (C,).
        rounds: questions to the centers that the fit took, the moments among them.
        converged: whether the last step was below the tolerance.
    """

    layout: Layout
    scaling: Scaling
    weight: np.ndarray
    bias: np.ndarray
    rounds: int = 0
    converged: bool = True
    loss: np.ndarray = field(default_factory=lambda: np.zeros(1))

    def output(self, rows: Rows) -> np.ndarray:
        """(n, C): log-risk, logits or scores."""
        return standardise(self.layout, rows.values, rows.flags, self.scaling) @ self.weight.T + self.bias
