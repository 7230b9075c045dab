"""Labels: AUROC, AUPRC, balanced accuracy, calibration and temperature, all from histograms and tables that add up."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from common.metrics.concordance import logit_interval
from common.metrics.overlap import mean_defined, ratio

SCORE_BINS = 256
SCORE_RANGE = 16.0  # logits beyond it share the outermost bins
SCORE_SCALE = 20.0  # bins are finest around 0: half a bin is about 0.001 there and 2.5 % of a large logit
TEMPERATURES = np.geomspace(0.1, 10.0, 61)  # on which the log-likelihood is summed


def score_bins(logits: np.ndarray, bins: int = SCORE_BINS) -> np.ndarray:
    """Bin numbers of logits, the same at every center; monotone, finest around 0, so that ranks survive."""
    clipped = np.clip(np.nan_to_num(np.asarray(logits, np.float64)), -SCORE_RANGE, SCORE_RANGE)
    position = np.arcsinh(SCORE_SCALE * clipped) / np.arcsinh(SCORE_SCALE * SCORE_RANGE)  # [-1, 1]
    return np.minimum((position + 1) / 2 * bins, bins - 1).astype(np.int64)


def score_of_bin(bins: int = SCORE_BINS) -> np.ndarray:
    """The logit in the middle of each bin, (bins,)."""
    middle = 2 * (np.arange(bins) + 0.5) / bins - 1
    return np.sinh(middle * np.arcsinh(SCORE_SCALE * SCORE_RANGE)) / SCORE_SCALE


def auroc_from_counts(positives: np.ndarray, negatives: np.ndarray) -> float | None:
    """Area under the ROC curve from histograms of scores (bins in ascending order); cases in one bin tie."""
    below = np.cumsum(negatives) - negatives
    wins = float((positives * (below + negatives / 2)).sum())
    return ratio(wins, float(positives.sum() * negatives.sum()))


def auroc_interval(positives: np.ndarray, negatives: np.ndarray) -> tuple[float, float] | None:
    """95 % interval of the AUROC from the same histograms (DeLong et al. 1988), on the logit scale.

    None with fewer than two positives or negatives, or at an AUROC of 0 or 1.
    """
    value, p, n = auroc_from_counts(positives, negatives), float(positives.sum()), float(negatives.sum())
    if value is None or p < 2 or n < 2:
        return None
    of_positive = (np.cumsum(negatives) - negatives / 2) / n  # share of negatives below a positive of each bin
    of_negative = 1 - (np.cumsum(positives) - positives / 2) / p
    spread = [
        (counts * (placement - value) ** 2).sum() / (total - 1) / total
        for counts, placement, total in ((positives, of_positive, p), (negatives, of_negative, n))
    ]
    return logit_interval(value, float(sum(spread)))


def auprc_from_counts(positives: np.ndarray, negatives: np.ndarray) -> float | None:
    """Average precision: sum over thresholds, from high to low, of the gain in recall times the precision."""
    hits, alarms = np.cumsum(positives[::-1]), np.cumsum((positives + negatives)[::-1])
    if hits[-1] <= 0 or alarms[-1] <= hits[-1]:
        return None
    precision = np.divide(hits, alarms, out=np.zeros(len(hits)), where=alarms > 0)
    return float((positives[::-1] * precision).sum() / hits[-1])


def balanced_accuracy(confusion: np.ndarray) -> float | None:
    """Mean recall over the classes that occur (HECKTOR 2025 and 2026).

    Args:
        confusion: (C, C) cases by true class (row) and predicted class (column).
    """
    rows = np.asarray(confusion, np.float64)
    return mean_defined([ratio(float(row[i]), float(row.sum())) for i, row in enumerate(rows)])


def calibration_error(cases: np.ndarray, predicted: np.ndarray, observed: np.ndarray) -> float | None:
    """Mean distance between predicted and observed share over bins, weighted by their cases (ECE)."""
    return ratio(float(np.abs(np.asarray(predicted) - observed).sum()), float(np.sum(cases)))


def best_temperature(nll: Sequence[float] | np.ndarray) -> float:
    """The temperature with the smallest summed negative log-likelihood, refined by a parabola through its neighbours.

    Args:
        nll: (T,) one sum for each of `TEMPERATURES`. All zero (no labels) gives 1.
    """
    nll, logs = np.asarray(nll, np.float64), np.log(TEMPERATURES)
    if not nll.any():
        return 1.0
    k = int(nll.argmin())
    if k in (0, len(nll) - 1):
        return float(TEMPERATURES[k])
    left, middle, right = nll[k - 1 : k + 2]
    bend = left - 2 * middle + right
    shift = 0.5 * (left - right) / bend if bend > 0 else 0.0
    return float(np.exp(logs[k] + shift * (logs[1] - logs[0])))
