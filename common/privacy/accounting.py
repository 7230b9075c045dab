"""Accounting: what epsilon a list of noised releases adds up to at a delta, and how much noise keeps it below one.

A release is a sum over patients, each patient's part clipped to a norm C, plus Gaussian noise of standard deviation
``noise`` x C; every patient takes part with the probability ``rate``, on its own (Poisson sampling). Neighbouring
cohorts differ by one patient, added or removed. Composition is over all of a cohort's releases: steps, tasks, runs.

Two accountants, both Opacus': Renyi (``rdp``; Mironov 2017, Mironov et al. 2019) and privacy random variables
(``prv``; Gopi et al. 2021), which is tighter. Both are upper bounds, so ``prv`` never says more than ``rdp``.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from common.errors import ConfigError

ACCOUNTANTS = ("prv", "rdp")
ORDERS = (*(1 + n / 10 for n in range(1, 100)), *range(11, 64), 64, 80, 96, 128, 192, 256)
LARGEST_PRV = 300.0  # of the Renyi epsilon: above, exp(epsilon) leaves float64's range on PRV's domain
CLOSE = 1e-3  # relative: to how much the smallest sufficient noise is looked for
SMALLEST_NOISE, LARGEST_NOISE = 1e-2, 1e6

Schedule = tuple[tuple[float, float, int], ...]  # (noise, rate, draws) of releases that are alike, each once


@dataclass(frozen=True)
class Release:
    """One use of patients' data that left with noise, as often as it was drawn.

    Args:
        noise: standard deviation over the bound of one patient's part; 0: it left without noise.
        rate: the public probability with which a patient takes part in a draw; 1: everybody does.
        draws: how many times.
        kind: what it was, for a reader: ``train``, ``moments``, ``scores``.
    """

    noise: float
    rate: float = 1.0
    draws: int = 1
    kind: str = "train"

    def __post_init__(self) -> None:
        said = [
            f"{name} is {value}; it must be {wanted}"
            for name, value, wanted, is_fine in (
                ("noise", self.noise, "0 or more and finite", 0 <= self.noise < math.inf),
                ("rate", self.rate, "above 0 and at most 1", 0 < self.rate <= 1),
                ("draws", self.draws, "a whole number from 0", self.draws >= 0 and self.draws == int(self.draws)),
            )
            if not is_fine
        ]
        if said:
            raise ConfigError(f"A release cannot be counted: {'; '.join(said)}.")


def epsilon(releases: Iterable[Release], delta: float, accountant: str = "prv") -> float:
    """The epsilon of all releases together at this delta: 0 of none, infinite where one left without noise.

    Raises:
        ConfigError: a delta outside (0, 1), an unknown accountant.
    """
    if accountant not in ACCOUNTANTS:
        raise ConfigError(f"'{accountant}' is no accountant; it can be {' or '.join(ACCOUNTANTS)}.")
    if not 0 < delta < 1:
        raise ConfigError(f"delta is {delta:g}; it must lie between 0 and 1, well below one over the cohort's size.")
    return _epsilon(_schedule(releases), delta, accountant)


def noise_for(
    target: float,
    delta: float,
    *,
    rate: float,
    draws: int,
    earlier: Sequence[Release] = (),
    accountant: str = "prv",
    found_before: float | None = None,
) -> float:
    """The smallest noise, to a thousandth, with which ``draws`` more releases keep the whole at or below an epsilon.

    Args:
        target: epsilon, of the earlier releases and of these together.
        rate: with which each patient takes part in each of these.
        earlier: what has left already.
        found_before: an answer to this very question, from wherever: taken where it keeps the epsilon, which one
            evaluation says in the place of a search of ten.

    Raises:
        ConfigError: no noise is enough, because the earlier releases alone are at the target or above it.
    """
    if not 0 < target < math.inf:
        raise ConfigError(f"epsilon is {target:g}; it must be positive and finite.")

    def spent(noise: float) -> float:
        return epsilon([*earlier, Release(noise, rate, draws)], delta, accountant)

    if found_before is not None and 0 < found_before < math.inf and spent(found_before) <= target:
        return found_before
    start = 1.0
    if accountant == "prv":  # a tenth of the time, and never less noise
        start = noise_for(target, delta, rate=rate, draws=draws, earlier=earlier, accountant="rdp")
    high = start
    while spent(high) > target:
        high *= 2
        if high > LARGEST_NOISE:
            raise ConfigError(
                f"No noise keeps {draws} more releases below epsilon {target:g} at delta {delta:g}: the earlier ones "
                f"have spent {epsilon(earlier, delta, accountant):.3g}."
            )
    low = 0.85 * high
    while spent(low) <= target and low > SMALLEST_NOISE:
        low, high = 0.85 * low, low
    return _rounded_up(_narrowed(low, high, spent, target))


def _narrowed(low: float, high: float, spent: Callable[[float], float], target: float) -> float:
    """The upper end of a bracket within a thousandth; epsilon is nearly a power of the noise, so a line through the
    ends in logarithms hits the target almost at once, and the next question is a little to its other side."""
    while high > low * (1 + CLOSE):
        above, below = spent(low) / target, spent(high) / target
        if not 1 < above < math.inf or below <= 0:
            middle = math.sqrt(low * high)
        else:
            share = math.log(above) / (math.log(above) - math.log(below))
            middle = low * (high / low) ** share
            middle = min(max(middle * (1 + CLOSE / 3), low * (1 + CLOSE / 2)), high * (1 - CLOSE / 2))
        if spent(middle) > target:
            low = middle
            continue
        high = middle
        under = middle * (1 - 0.9 * CLOSE)
        if under > low:
            low, high = (under, high) if spent(under) > target else (low, under)
    return high


def _rounded_up(noise: float) -> float:
    """To four decimals, so that it is the same on machines whose last bits differ."""
    return math.ceil(noise * 1e4) / 1e4


def _schedule(releases: Iterable[Release]) -> Schedule:
    """Releases that are alike together, in an order of their own, so that equal lists are the same question."""
    draws: Counter[tuple[float, float]] = Counter()
    for release in releases:
        draws[(float(release.noise), float(release.rate))] += int(release.draws)
    return tuple(sorted((noise, rate, count) for (noise, rate), count in draws.items() if count > 0))


@lru_cache(maxsize=4096)
def _epsilon(schedule: Schedule, delta: float, accountant: str) -> float:
    if not schedule:
        return 0.0
    if any(noise == 0 for noise, _, _ in schedule):
        return math.inf
    bound = _renyi(schedule, delta)
    return bound if accountant == "rdp" or bound > LARGEST_PRV else min(bound, _prv(schedule, delta, bound))


def _renyi(schedule: Schedule, delta: float) -> float:
    from opacus.accountants.analysis import rdp

    total = sum(_renyi_of(noise, rate) * draws for noise, rate, draws in schedule)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Optimal order is the")  # a wider list would change little
        found, _ = rdp.get_privacy_spent(orders=list(ORDERS), rdp=total, delta=delta)
    return max(float(found), 0.0)


@lru_cache(maxsize=4096)
def _renyi_of(noise: float, rate: float) -> np.ndarray:
    """The Renyi divergence of one draw at each of `ORDERS`; infinite where floating point cannot say."""
    from opacus.accountants.analysis import rdp

    return np.array([_one_order(rdp, noise, rate, order) for order in ORDERS])


def _one_order(rdp: Any, noise: float, rate: float, order: float) -> float:
    try:
        found = float(rdp.compute_rdp(q=rate, noise_multiplier=noise, steps=1, orders=float(order)))
    except (OverflowError, ValueError):  # log of 0, or a difference that rounding made negative: no bound at this order
        return math.inf
    return found if math.isfinite(found) and found >= 0 else math.inf


def _prv(schedule: Schedule, delta: float, bound: float) -> float:
    """The upper end of the accountant's own error; infinite where its grid cannot resolve so small a delta.

    Args:
        bound: another upper bound, to which the grid's width is fitted where 0.01 would be coarse.
    """
    from opacus.accountants import PRVAccountant

    accountant = PRVAccountant()
    accountant.history = list(schedule)
    error = min(0.01, max(bound, 1e-3) / 200)
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            # Rate 1 takes log(0) at the end of the range, which is right; a largest order only widens the grid.
            warnings.simplefilter("ignore")
            return max(float(accountant.get_epsilon(delta, eps_error=error)), 0.0)
    except (ValueError, RuntimeError):
        return math.inf
