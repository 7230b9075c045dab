"""Metrics as pure functions of counts, so that centers' counts can be added and divided once.

Counts are numpy float64. A value that the counts do not define (no comparable pair, an empty structure) is None.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from scipy.stats import chi2

SCORE_BINS = 256
SCORE_RANGE = 16.0  # logits beyond it share the outermost bins
SCORE_SCALE = 20.0  # bins are finest around 0: half a bin is about 0.001 there and 2.5 % of a large logit

Case = TypeVar("Case")


# -------------------------------------------------------------------------------------------------- concordance


class HarrellCounts(NamedTuple):
    """Pairs of cases in which the order of the times is known."""

    concordant: float  # the earlier event has the higher risk
    tied: float  # equal risks, or a risk that is NaN
    comparable: float


def harrell_counts(time: np.ndarray, event: np.ndarray, risk: np.ndarray) -> HarrellCounts:
    """Harrell's pairs under HECKTOR's rules (its copy of lifelines' routine).

    A pair is comparable when the earlier time is an event; equal times only when exactly one of them is an event, which
    then counts as the earlier. A missing risk (NaN) ties with every other.

    Args:
        time, event, risk: (n,); event is 0 or 1, a higher risk means an earlier event.
    """
    time, event, risk = (np.asarray(x, np.float64) for x in (time, event, risk))
    happened = event > 0
    first = time[:, None] < time[None, :]
    first |= (time[:, None] == time[None, :]) & ~happened[None, :]
    comparable = first & happened[:, None]
    missing = np.isnan(risk)[:, None] | np.isnan(risk)[None, :]
    tied = comparable & (missing | (risk[:, None] == risk[None, :]))
    concordant = comparable & (risk[:, None] > risk[None, :])
    return HarrellCounts(float(concordant.sum()), float(tied.sum()), float(comparable.sum()))


def concordance_index(concordant: float, tied: float, comparable: float) -> float | None:
    """(concordant + tied / 2) / comparable."""
    return _ratio(concordant + tied / 2, comparable)


# -------------------------------------------------------------------------------------------------------- overlap


def dsc_agg(intersection: np.ndarray, volumes: np.ndarray) -> list[float | None]:
    """HECKTOR's aggregated Dice per structure: 2 sum |A and B| / sum (|A| + |B|), over all cases.

    Args:
        intersection, volumes: (S,) sums over cases; volumes is predicted plus true. Any one unit of volume.
    """
    return [_ratio(2 * float(i), float(v)) for i, v in zip(intersection, volumes, strict=True)]


def mean_defined(values: Sequence[float | None]) -> float | None:
    """Mean of the values that are defined; None where none is."""
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if defined else None


# ---------------------------------------------------------------------------------------------------------- AUROC


def score_bins(logits: np.ndarray, bins: int = SCORE_BINS) -> np.ndarray:
    """Bin numbers of logits, the same at every center; monotone, finest around 0, so that ranks survive."""
    clipped = np.clip(np.nan_to_num(np.asarray(logits, np.float64)), -SCORE_RANGE, SCORE_RANGE)
    position = np.arcsinh(SCORE_SCALE * clipped) / np.arcsinh(SCORE_SCALE * SCORE_RANGE)  # [-1, 1]
    return np.minimum((position + 1) / 2 * bins, bins - 1).astype(np.int64)


def auroc_from_counts(positives: np.ndarray, negatives: np.ndarray) -> float | None:
    """Area under the ROC curve from histograms of scores (bins in ascending order); cases in one bin tie."""
    below = np.cumsum(negatives) - negatives
    wins = float((positives * (below + negatives / 2)).sum())
    return _ratio(wins, float(positives.sum() * negatives.sum()))


# ----------------------------------------------------------------------------------------------- survival, grouped


def kaplan_meier(at_risk: np.ndarray, events: np.ndarray) -> np.ndarray:
    """Survival (..., K) after each grid time from at-risk and event counts (..., K); flat where nobody is at risk."""
    hazard = np.divide(
        events, at_risk, out=np.zeros_like(np.asarray(events, np.float64)), where=np.asarray(at_risk) > 0
    )
    return np.cumprod(1 - hazard, axis=-1)


def log_rank(at_risk: np.ndarray, events: np.ndarray) -> tuple[float, float] | None:
    """Log-rank statistic and p value of two groups from at-risk and event counts (2, K); None without variance."""
    at_risk, events = np.asarray(at_risk, np.float64), np.asarray(events, np.float64)
    n, d = at_risk.sum(axis=0), events.sum(axis=0)
    some = n > 1
    share = at_risk[1, some] / n[some]
    expected = (d[some] * share).sum()
    variance = (d[some] * share * (1 - share) * (n[some] - d[some]) / (n[some] - 1)).sum()
    if variance <= 0:
        return None
    statistic = float((events[1, some].sum() - expected) ** 2 / variance)
    return statistic, float(chi2.sf(statistic, df=1))


# ------------------------------------------------------------------------------------------------------ intervals


class Difference(NamedTuple):
    """A difference with its percentile interval; None where the statistic is not defined on the whole sample."""

    difference: float | None
    low: float | None
    high: float | None


def paired_bootstrap(
    observations_a: Sequence[Case],
    observations_b: Sequence[Case],
    *,
    statistic: Callable[[list[Case]], float | None],
    strata: Sequence[object] | None = None,
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Difference:
    """statistic(a) - statistic(b) over the same patients, with a percentile interval over resampled patients.

    Args:
        observations_a, observations_b: one entry per patient, in the same order.
        statistic: of a list of observations; draws on which it is None are left out.
        strata: one label per patient (their center); patients are resampled within labels.
        level: coverage of the interval.
    """
    if len(observations_a) != len(observations_b):
        raise ValueError(f"Paired observations differ in number: {len(observations_a)} and {len(observations_b)}.")

    def difference(rows: np.ndarray | range) -> float | None:
        a, b = (statistic([side[i] for i in rows]) for side in (observations_a, observations_b))
        return None if a is None or b is None else a - b

    groups = _groups(strata if strata is not None else [0] * len(observations_a))
    generator = np.random.default_rng(seed)
    drawn = [difference(np.concatenate([generator.choice(g, len(g)) for g in groups])) for _ in range(draws)]
    defined = [value for value in drawn if value is not None]
    point = difference(range(len(observations_a)))
    if point is None or not defined:
        return Difference(point, None, None)
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Difference(point, float(low), float(high))


def _groups(labels: Sequence[object]) -> list[np.ndarray]:
    rows: dict[object, list[int]] = {}
    for row, label in enumerate(labels):
        rows.setdefault(label, []).append(row)
    return [np.array(group) for group in rows.values()]


def _ratio(numerator: float, denominator: float) -> float | None:
    return numerator / denominator if denominator > 0 else None
