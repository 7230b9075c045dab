"""Survival on common cuts: Kaplan-Meier, censoring weights, Brier score, time-dependent AUC and calibration.

Everything here is a sum over patients once the censoring distribution G is known, and G itself comes from summed
counts. Times go up to the next cut, and every metric is exact for those times. Beyond the last cut nothing
is known, as in training.

Many events and censorings share a cut, and events come first there: an event at t is seen with probability
G(t-), of not being censored before t. Brier score, time-dependent AUC and calibration weigh by that left limit. Uno's
concordance alone keeps G(t), as scikit-survival does, so that it can be compared with published values; where times tie
it gives later events more weight than they should have.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import chdtrc  # the upper tail of scipy.stats.chi2, whose import takes half a second

CALIBRATION_BINS = 10


def cut_index(time: np.ndarray, cuts: np.ndarray) -> np.ndarray:
    """Number of the next cut for each time (n,); the number of cuts for times beyond it."""
    return np.searchsorted(np.asarray(cuts, np.float64), np.asarray(time, np.float64), side="left")


# ----------------------------------------------------------------------------------------------- Kaplan and Meier


def kaplan_meier(at_risk: np.ndarray, events: np.ndarray) -> np.ndarray:
    """Survival (..., K) after each cut from at-risk and event counts (..., K); flat where nobody is at risk."""
    hazard = np.divide(
        events, at_risk, out=np.zeros_like(np.asarray(events, np.float64)), where=np.asarray(at_risk) > 0
    )
    return np.cumprod(1 - hazard, axis=-1)


def breslow_counts(
    index: np.ndarray, event: np.ndarray, risk: np.ndarray, *, bins: int
) -> tuple[np.ndarray, np.ndarray]:
    """(events, summed exp(risk) of who is at risk), each (bins,), per cut: what Breslow's estimate is made of.

    Args:
        index: (n,) number of each case's cut.
        risk: (n,) log risk.
    """
    happened = np.asarray(event) > 0
    leaving = np.bincount(index, weights=np.exp(risk), minlength=bins)
    events = np.bincount(index[happened], minlength=bins).astype(np.float64)
    return events, leaving[::-1].cumsum()[::-1].copy()


def breslow(events: np.ndarray, at_risk: np.ndarray) -> np.ndarray:
    """Breslow's cumulative baseline hazard (K,) from added `breslow_counts`."""
    return np.divide(events, at_risk, out=np.zeros(len(events)), where=np.asarray(at_risk) > 0).cumsum()


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
    return statistic, float(chdtrc(1, statistic))


# ------------------------------------------------------------------------------------------------------ censoring


def censoring_counts(time: np.ndarray, event: np.ndarray, cuts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(at risk of being censored, censored), each (K,), per cut; events at the same time come first."""
    index, happened = cut_index(time, cuts), np.asarray(event) > 0
    size = len(cuts) + 1
    left, events = np.bincount(index, minlength=size), np.bincount(index[happened], minlength=size)
    entering = left[::-1].cumsum()[::-1]
    return (entering - events)[:-1].astype(np.float64), (left - events)[:-1].astype(np.float64)


def censoring_survival(at_risk: np.ndarray, censored: np.ndarray) -> np.ndarray:
    """G (K,): probability of not being censored up to and including each cut."""
    return kaplan_meier(at_risk, censored)


def weights_at(
    time: np.ndarray, event: np.ndarray, cuts: np.ndarray, censoring: np.ndarray, *, through: bool = False
) -> np.ndarray:
    """1 / G(t_i-) (n,) of cases with an event up to the last cut: how many patients each stands for. 0 of the others
    and where G is 0.

    Args:
        censoring: (K,) G at the cuts.
        through: 1 / G(t_i) instead, scikit-survival's convention, which Uno's concordance keeps.
    """
    at = np.asarray(censoring, np.float64)
    seen = np.append(at, 0.0) if through else np.concatenate([[1.0], at[:-1], [0.0]])
    inverse = np.divide(1.0, seen, out=np.zeros_like(seen), where=seen > 0)
    return inverse[cut_index(time, cuts)] * (np.asarray(event) > 0)


# ---------------------------------------------------------------------------------------------------------- Brier


def brier_sums(
    time: np.ndarray, event: np.ndarray, survival: np.ndarray, *, cuts: np.ndarray, censoring: np.ndarray
) -> np.ndarray:
    """Sum (K,) over cases of the censoring-weighted squared error at each cut (Graf et al. 1999).

    Args:
        survival: (n, K) predicted probability of being free of relapse after each cut.
        censoring: (K,) G at the cuts; times where G is 0 add nothing.
    """
    index, columns = cut_index(time, cuts)[:, None], np.arange(len(cuts))[None, :]
    gone = (index <= columns) * weights_at(time, event, cuts, censoring)[:, None]
    alive = (index > columns) * np.divide(1.0, censoring, out=np.zeros(len(cuts)), where=np.asarray(censoring) > 0)
    return (gone * survival**2 + alive * (1 - survival) ** 2).sum(axis=0)


def integrated(values: np.ndarray, cuts: np.ndarray) -> float | None:
    """Mean over time by Simpson's rule, as pycox does; None on fewer than two cuts."""
    from scipy.integrate import simpson  # brings scipy's optimizers along

    cuts = np.asarray(cuts, np.float64)
    return float(simpson(values, x=cuts) / (cuts[-1] - cuts[0])) if len(cuts) > 1 and cuts[-1] > cuts[0] else None


# --------------------------------------------------------------------------------------------- time-dependent AUC


def dynamic_auc_sums(
    time: np.ndarray, event: np.ndarray, risk: np.ndarray, *, cuts: np.ndarray, censoring: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(wins, pairs), each (K,): cumulative cases against those still free at each cut (Uno et al. 2007).

    A case with a relapse up to the cut weighs 1 / G(t_i-); wins / pairs is the AUC. Ties count half.
    """
    index, risk = cut_index(time, cuts), np.asarray(risk, np.float64)
    weight = weights_at(time, event, cuts, censoring)
    better = (risk[:, None] > risk[None, :]) + 0.5 * ((risk[:, None] == risk[None, :]) | _missing(risk))
    wins, pairs = np.zeros(len(cuts)), np.zeros(len(cuts))
    for k in range(len(cuts)):
        case, control = weight * (index <= k), (index > k).astype(np.float64)
        wins[k], pairs[k] = case @ better @ control, case.sum() * control.sum()
    return wins, pairs


def _missing(risk: np.ndarray) -> np.ndarray:
    return np.isnan(risk)[:, None] | np.isnan(risk)[None, :]


# ---------------------------------------------------------------------------------------------------- calibration


class Reliability(NamedTuple):
    """Per bin of the predicted probability: cases, summed prediction and (weighted) events that happened."""

    cases: np.ndarray
    predicted: np.ndarray
    observed: np.ndarray


def reliability_sums(predicted: np.ndarray, observed: np.ndarray, *, bins: int = CALIBRATION_BINS) -> Reliability:
    """Sums (bins,) over equally wide bins of the predicted probability.

    Args:
        predicted: (n,) in [0, 1].
        observed: (n,) 0 or 1, or under censoring 1 / G(t_i-) for an event up to the time in question.
    """
    place = np.minimum((np.asarray(predicted, np.float64) * bins).astype(np.int64), bins - 1)
    parts = (np.bincount(place, weights=x, minlength=bins) for x in (np.ones(len(place)), predicted, observed))
    return Reliability(*(np.asarray(part, np.float64) for part in parts))


def d_calibration_counts(survival: np.ndarray, event: np.ndarray, *, bins: int = CALIBRATION_BINS) -> np.ndarray:
    """Counts (bins,) of the predicted survival at each case's own time (Haider et al. 2020).

    A relapse counts in the bin of its S_i(t_i); a censored case is spread over that bin and those below, as its time of
    relapse is later.

    Args:
        survival: (n,) S_i(t_i) in [0, 1].
    """
    survival, happened = np.clip(np.asarray(survival, np.float64), 0, 1), np.asarray(event) > 0
    place = np.minimum((survival * bins).astype(np.int64), bins - 1)
    counts = np.bincount(place[happened], minlength=bins).astype(np.float64)
    for s, b in zip(survival[~happened], place[~happened], strict=True):
        if s <= 0:
            counts[0] += 1
            continue
        counts[b] += (s - b / bins) / s
        counts[:b] += 1 / (bins * s)
    return counts


def d_calibration(counts: np.ndarray) -> tuple[float, float] | None:
    """Chi-square statistic and p value of equal counts; a small p says that the curves are not calibrated.

    None without cases, and of a single count.
    """
    counts = np.asarray(counts, np.float64)
    if counts.sum() <= 0 or len(counts) < 2:
        return None
    expected = counts.sum() / len(counts)
    statistic = float(((counts - expected) ** 2 / expected).sum())
    return statistic, float(chdtrc(len(counts) - 1, statistic))


def survival_at(survival: np.ndarray, time: np.ndarray, cuts: np.ndarray) -> np.ndarray:
    """S_j(t_i), (n, m) in row i and column j: curves (m, K) as right-continuous steps, 1 before the first cut."""
    index = np.searchsorted(np.asarray(cuts, np.float64), np.asarray(time, np.float64), side="right") - 1
    padded = np.concatenate([np.ones((len(survival), 1)), survival], axis=1)
    return padded[:, np.minimum(index, len(cuts) - 1) + 1].T
