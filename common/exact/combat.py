"""ComBat from moments: each center's location and scale of every feature, drawn towards what its features share.

Johnson, Li and Rabinovic (Biostatistics 2007), without covariates, as neuroCombat computes it: the pooled variance is
over all patients, a center's own over n - 1, priors over features - 1, and the estimates stop at a relative change of
1e-4. Nothing but each center's counts, sums and sums of squares is needed, so nothing more leaves it than for the
standardisation of any exact fit. A feature without spread stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from common.errors import RoundFailed
from common.exact.columns import COUNT, SQUARE, SUM
from common.protocol.messages import Sums

COMBAT = "combat"
FEWEST_PATIENTS, FEWEST_FEATURES, FEWEST_CENTERS = 3, 2, 2
CHANGE, MOST_TURNS = 1e-4, 10_000
NO_SPREAD = 1e-12  # of a feature's mean square: what rounding leaves of a constant one


@dataclass(frozen=True)
class Affine:
    """What becomes of a center's features: ``x * factor + shift``, (F,) each."""

    factor: np.ndarray
    shift: np.ndarray

    def of(self, values: np.ndarray) -> np.ndarray:
        """Harmonized values, (n, F)."""
        return values * self.factor + self.shift

    def of_moments(self, sums: Sums) -> Sums:
        """The moments of the harmonized values, from those of the raw ones."""
        count, total = sums[COUNT], sums[SUM]
        squares = self.factor**2 * sums[SQUARE] + 2 * self.factor * self.shift * total + self.shift**2 * count
        return {**sums, SUM: self.factor * total + self.shift * count, SQUARE: squares}


def harmonized(moments: Mapping[str, Sums], features: np.ndarray) -> dict[str, Affine]:
    """Each center's correction, by code.

    Args:
        moments: counts, sums and sums of squares (F,) of each center's training patients.
        features: bool (F,): which columns are frozen features; the others stay as they are.

    Raises:
        RoundFailed: fewer than two centers or features, or a center of too few patients.
    """
    raw = {code: np.stack([sums[name][features] for name in (COUNT, SUM, SQUARE)]) for code, sums in moments.items()}
    _check(raw)
    count = np.stack([one[0] for one in raw.values()])  # (centers, features)
    mean = np.stack([one[1] for one in raw.values()]) / count
    scatter = np.maximum(np.stack([one[2] for one in raw.values()]) - count * mean**2, 0.0)
    total = count.sum(axis=0)
    grand, pooled = (count * mean).sum(axis=0) / total, scatter.sum(axis=0) / total
    squares = sum(one[2] for one in raw.values()) / total
    spread = pooled > NO_SPREAD * squares
    _check_features(int(spread.sum()))
    scale = np.sqrt(pooled[spread])
    found = {}
    for place, code in enumerate(raw):
        n = count[place][spread]
        own = (mean[place] - grand)[spread] / scale
        variance = scatter[place][spread] / pooled[spread] / (n - 1)
        location, width = _drawn(own, variance, n)
        factor, shift = np.ones(len(features)), np.zeros(len(features))
        where = np.flatnonzero(features)[spread]
        factor[where] = 1 / np.sqrt(width)
        shift[where] = grand[spread] * (1 - factor[where]) - scale * location * factor[where]
        found[code] = Affine(factor, shift)
    return found


def _drawn(own: np.ndarray, variance: np.ndarray, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Location and squared scale (F,) of one center's standardised features, by empirical Bayes.

    Args:
        own, variance: mean and variance (over n - 1) of each feature.
    """
    center, tau = own.mean(), own.var(ddof=1)
    middle, width = variance.mean(), variance.var(ddof=1)
    if width == 0:  # every feature varies alike here: the prior is a point
        return (tau * n * own + variance * center) / (tau * n + variance), variance
    a, b = (2 * width + middle**2) / width, (middle * width + middle**3) / width
    scatter = variance * (n - 1)
    location, squared = own, variance
    for _ in range(MOST_TURNS):
        moved = (tau * n * own + squared * center) / (tau * n + squared)
        wider = (0.5 * (scatter + n * (own - moved) ** 2) + b) / (n / 2 + a - 1)
        change = max(_relative(moved, location), _relative(wider, squared))
        location, squared = moved, wider
        if change <= CHANGE:
            break
    return location, squared


def _relative(new: np.ndarray, old: np.ndarray) -> float:
    """neuroCombat's measure, which divides by the signed old value."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.nanmax(np.abs(new - old) / old, initial=0.0))


def _check(raw: Mapping[str, np.ndarray]) -> None:
    if len(raw) < FEWEST_CENTERS:
        raise RoundFailed(
            f"Features of one center ({', '.join(raw)}) have nothing to be harmonized with; leave harmonize out, or "
            "let a second center take part."
        )
    least = {code: float(one[0].min(initial=np.inf)) for code, one in raw.items()}
    few = [f"{code} ({count:g})" for code, count in least.items() if count < FEWEST_PATIENTS]
    if few:
        raise RoundFailed(
            f"Harmonization needs {FEWEST_PATIENTS} training patients or more with every feature at each center; too "
            f"few at {', '.join(few)}. Leave them out of the step's centers, or leave harmonize out."
        )


def _check_features(count: int) -> None:
    if count < FEWEST_FEATURES:
        raise RoundFailed(
            f"{count} of the features vary within centers; ComBat draws each towards the others and needs "
            f"{FEWEST_FEATURES} or more. Leave harmonize out."
        )
