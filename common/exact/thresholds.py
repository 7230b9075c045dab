"""Thresholds of an exact segmentation, which sums choose.

Voxels are drawn evenly from inside and outside the structures, which moves the intercept. So each structure gets the
threshold with the best aggregated Dice over the training cases' summed histograms of scores.
"""

from __future__ import annotations

import numpy as np

THRESHOLDS = "thresholds"  # the order's subset that asks for the histograms
TRUE, ALL = "scores.true_mm3", "scores.all_mm3"  # (S, SCORE_BINS): volume inside a structure, and altogether, by score
MISSED = "scores.missed_mm3"  # (S,): volume of a structure that lies outside what was scored
SCORE_BINS, FURTHEST = 240, 12.0  # bins of equal width from -FURTHEST to FURTHEST; what lies beyond joins the last ones


def score_histograms(scores: np.ndarray, inside: np.ndarray, voxel_mm3: float) -> tuple[np.ndarray, np.ndarray]:
    """(S, SCORE_BINS) mm3 inside each structure, and altogether, by score.

    Args:
        scores: (S, N) logits against background.
        inside: bool (S, N).
    """
    place = np.floor((scores + FURTHEST) / (2 * FURTHEST) * SCORE_BINS).clip(0, SCORE_BINS - 1).astype(int)
    every = [np.bincount(row, minlength=SCORE_BINS) for row in place]
    true = [np.bincount(row, weights=hit, minlength=SCORE_BINS) for row, hit in zip(place, inside, strict=True)]
    return np.array(true) * voxel_mm3, np.array(every) * voxel_mm3


def best_thresholds(true: np.ndarray, every: np.ndarray, *, missed: np.ndarray) -> np.ndarray:
    """(S,) scores from which voxels count as inside: lower edges of bins with the best aggregated Dice over all cases.

    Args:
        true, every: (S, SCORE_BINS), summed over cases.
        missed: (S,) mm3 of the structures that lie outside what was scored.
    """
    both = true[:, ::-1].cumsum(axis=1)[:, ::-1]  # at a bin's lower edge and above
    predicted = every[:, ::-1].cumsum(axis=1)[:, ::-1]
    truth = true.sum(axis=1, keepdims=True) + missed[:, None]
    dice = np.divide(2 * both, predicted + truth, out=np.zeros_like(both), where=predicted + truth > 0)
    edges = np.linspace(-FURTHEST, FURTHEST, SCORE_BINS + 1)[:-1]
    return edges[dice.argmax(axis=1)]
