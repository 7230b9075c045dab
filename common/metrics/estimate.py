"""Estimate: a value with its interval, and how it is written; and resampled values, which become one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


@dataclass(frozen=True)
class Estimate:
    """A value, or a difference, with its 95 % interval; None where it is not defined.

    Args:
        n: patients that it is about.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0

    @property
    def interval(self) -> tuple[float, float] | None:
        """Both ends, or None."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    @property
    def is_below_zero(self) -> bool:
        """Whether the whole interval lies below zero: of a gain in a score, harm."""
        return self.high is not None and self.high < 0

    def negated(self) -> Estimate:
        """The same of the opposite difference."""
        value, low, high = (None if end is None else -end for end in (self.value, self.high, self.low))
        return Estimate(value, low, high, self.n)

    def text(self, *, signed: bool = False, digits: int = 3) -> str | None:
        """``0.612 [0.550, 0.670]``, the value alone where there is no interval, None where there is no value."""
        if self.value is None:
            return None
        ends = self.interval_text(signed=signed, digits=digits)
        return written(self.value, signed=signed, digits=digits) + (f" {ends}" if ends else "")

    def interval_text(self, *, signed: bool = False, digits: int = 3) -> str:
        """``[0.550, 0.670]``; empty where there is no interval."""
        if self.low is None or self.high is None:
            return ""
        low, high = (written(end, signed=signed, digits=digits) for end in (self.low, self.high))
        return f"[{low}, {high}]"


def written(value: float, *, signed: bool = False, digits: int = 3) -> str:
    """A number with a fixed number of digits and a true minus sign."""
    return f"{value:{'+' if signed else ''}.{digits}f}".replace("-", "−")


class Resampled(NamedTuple):
    """A statistic of a sample, and its value in every draw (draws,), NaN where it is not defined."""

    value: float | None
    drawn: np.ndarray

    def minus(self, other: Resampled) -> Resampled:
        """The paired difference: both saw the same patients drawn."""
        defined = self.value is not None and other.value is not None
        return Resampled(self.value - other.value if defined else None, self.drawn - other.drawn)  # type: ignore[operator]

    def estimate(self, *, n: int = 0, level: float = 0.95) -> Estimate:
        """The value with the percentile interval of the draws that are defined; no interval without a value."""
        if self.value is None:
            return Estimate(None, n=n)
        return Estimate(self.value, *percentile_interval(self.drawn, level=level), n)


def percentile_interval(drawn: np.ndarray, *, level: float = 0.95) -> tuple[float | None, float | None]:
    """The percentile interval of resampled values (draws,); those that are not defined (NaN) are left out."""
    defined = drawn[np.isfinite(drawn)]
    if not len(defined):
        return None, None
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
