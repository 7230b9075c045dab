"""Real numbers as integers mod 2^32 or 2^64, so that masks hide them perfectly and sums of them are exact.

An update travels as its difference from the round's start, times its center's share of the largest weight, within a
public bound, and the weight as one more coordinate: the server learns the weighted sum and the sum of weights, no
single weight. The scale leaves room for as many contributors as there may be, so that a sum never wraps around. Sums of
losses, counts and scores have no bound that everyone knows: they are whole numbers of 2^-26 in 64 bits. Sums of
an exact fit travel as two such numbers, of 2^-20 and of what that rounds off in 2^-72, so that the sum of all centers
is as exact as float64 addition.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from common.errors import WireError

HALF = 2**31 - 1
FRACTION = float(2**26)  # parts of one, of a sum
ROOM = float(2**62)  # of all centers' sums together, in such parts
COARSE, FINE = float(2**20), float(2**72)  # parts of one, of the two numbers of an exact sum


@dataclass(frozen=True)
class Form:
    """How an update travels; public, the same for every center.

    Args:
        bound: the largest absolute value of a coordinate of a difference; more is cut off.
        most: the largest weight that a center may have.
        contributors: the most centers that may answer.
    """

    bound: float
    most: float
    contributors: int

    def __post_init__(self) -> None:
        if not (0 < self.bound < np.inf and 0 < self.most < np.inf and self.contributors >= 1):
            raise WireError(
                f"Numbers cannot be put into a secure sum with bound {self.bound:g}, largest weight {self.most:g} and "
                f"{self.contributors} contributors; all of them must be positive and finite."
            )

    @property
    def scale(self) -> float:
        """Integers per unit."""
        return HALF / self.contributors / self.bound


def encoded(form: Form, delta: np.ndarray, weight: float) -> np.ndarray:
    """A center's numbers, (n + 1,) uint32: the weighted difference, cut off at the bound, and the weight.

    Raises:
        WireError: numbers that are not finite, a weight that is not from 0 to the largest.
    """
    if not np.isfinite(delta).all() or not 0 <= weight <= form.most:
        raise WireError(
            f"A delta that is not finite, or a weight of {weight:g} where 0 to {form.most:g} is allowed, is not masked."
        )
    share, most = weight / form.most, HALF // form.contributors  # all of them together never wrap around
    values = np.empty(len(delta) + 1)
    np.clip(delta, -form.bound, form.bound, out=values[:-1])
    values[-1] = form.bound
    values *= share * form.scale
    return np.clip(np.rint(values, out=values), -most, most, out=values).astype(np.int32).view(np.uint32)


def decoded(form: Form, total: np.ndarray) -> tuple[np.ndarray, float]:
    """The weighted mean of differences, and the sum of weights. Raises WireError where no weight was summed."""
    values = total.view(np.int32).astype(np.float64) / form.scale
    shares = values[-1] / form.bound
    if shares <= 0:
        raise WireError("A secure sum holds no weight: nobody contributed, or masks are left in it.")
    return values[:-1] / shares, float(shares * form.most)


def encoded_sums(values: np.ndarray, contributors: int) -> np.ndarray:
    """A center's sums, (n,) uint64. Raises WireError for one that is not finite, or beyond its share of the room."""
    scaled, most = np.asarray(values, np.float64) * FRACTION, ROOM / contributors
    if not (np.isfinite(scaled).all() and (np.abs(scaled) <= most).all()):
        raise WireError(f"A sum that is not finite, or beyond {most / FRACTION:g}, is not masked.")
    return np.rint(scaled).astype(np.int64).view(np.uint64)


def decoded_sums(total: np.ndarray) -> np.ndarray:
    """The sums of all, float64."""
    return total.view(np.int64).astype(np.float64) / FRACTION


def encoded_exactly(values: np.ndarray, contributors: int) -> np.ndarray:
    """A center's sums of an exact fit, (2 n,) uint64: to the nearest 2^-20, then what is left of each.

    Raises:
        WireError: a sum that is not finite, or beyond its share of the room (4e12 over the contributors).
    """
    values, most = np.asarray(values, np.float64), ROOM / contributors
    if not (np.isfinite(values).all() and (np.abs(values) * COARSE <= most).all()):
        raise WireError(f"A sum that is not finite, or beyond {most / COARSE:g}, is not masked.")
    coarse = np.rint(values * COARSE)
    left = np.rint((values - coarse / COARSE) * FINE)  # at most 2^51: a difference of neighbors, so without rounding
    return np.concatenate([coarse, left]).astype(np.int64).view(np.uint64)


def decoded_exactly(total: np.ndarray) -> np.ndarray:
    """The sums of all, float64."""
    coarse, left = total.view(np.int64).astype(np.float64).reshape(2, -1)
    found: np.ndarray = coarse / COARSE + left / FINE
    return found
