"""Distances of surfaces and lesions found, of cases scored where they were drawn: per case, as sums, and as metrics.

What merges across centers of a median is a histogram of each patient's distance, its cells counting patients. It is
told twice: a center that merges small cells puts them at their lower edge in one and at their upper edge in the other,
so the median lies between what both say.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from common.metrics import dsc_agg, mean_defined
from common.metrics.surface import HD95_CELLS, hd95_cell, lesions, median_between, surfaces
from common.protocol.messages import Sums
from common.tasks.base import Observation, Shapes, column
from common.tasks.bounds import AtMost
from common.tasks.cells import Histogram

LESIONS = ("lesions_found", "lesions_false", "lesions_missed")
LOW, HIGH, SURFACE = "hd95_from", "hd95_to", "surface_dice_sum"
DISTANCE_BOUNDS = (
    AtMost((SURFACE,), "dice_cases"),
    AtMost((LOW,), "dice_cases", over=(-1,)),
    AtMost((HIGH,), "dice_cases", over=(-1,)),
)
DISTANCE_CELLS = (Histogram((LOW,), edge=-1, varies=True), Histogram((HIGH,), edge=1, varies=True))


def measured(
    predicted: np.ndarray, truth: np.ndarray, *, spacing_mm: np.ndarray, tolerance_mm: float, farthest_mm: float
) -> Observation:
    """``hd95`` in mm, ``surface_dice`` and `LESIONS` of one case, each (S,).

    A structure that only one side has is ``farthest_mm`` away and its surfaces never meet; of one that neither has both
    are 0, and `distance_sums` does not count it.

    Args:
        predicted, truth: bool (S, x, y, z).
    """
    pairs = list(zip(predicted, truth, strict=True))
    found = [
        surfaces(a, b, spacing_mm=spacing_mm, tolerance_mm=tolerance_mm, farthest_mm=farthest_mm) for a, b in pairs
    ]
    counted = np.array([lesions(a, b) for a, b in pairs], np.float64)
    return {
        "hd95": np.array([0.0 if one is None else one.hd95_mm for one in found]),
        "surface_dice": np.array([0.0 if one is None else one.surface_dice for one in found]),
        **dict(zip(LESIONS, counted.T, strict=True)),
    }


def distance_shapes(structures: int) -> Shapes:
    """Of every sum of `distance_sums`."""
    return dict.fromkeys((SURFACE, *LESIONS), (structures,)) | dict.fromkeys((LOW, HIGH), (structures, HD95_CELLS))


def distance_sums(observations: Sequence[Observation], *, width: int) -> Sums:
    """Sums over records that hold `measured`; zeros of none. A missed or a false structure counts in the last cell."""
    names = ("hd95", "surface_dice", "predicted", "truth", *LESIONS)
    each = {name: column(observations, name, width=width) for name in names}
    counts = np.zeros((width, HD95_CELLS))
    for distance, predicted, truth in zip(each["hd95"], each["predicted"], each["truth"], strict=True):
        for place in np.flatnonzero(predicted + truth > 0):
            on_both = predicted[place] > 0 and truth[place] > 0
            counts[place, hd95_cell(distance[place]) if on_both else HD95_CELLS - 1] += 1
    found = {name: each[name].sum(axis=0) for name in LESIONS}
    return found | {SURFACE: each["surface_dice"].sum(axis=0), LOW: counts, HIGH: counts.copy()}


def distance_metrics(sums: Sums, structures: Sequence[str]) -> dict[str, float | None]:
    """``surface_dice`` (mean over cases) and ``lesion_f1`` (HECKTOR 2025: over all lesions), each and averaged over
    structures; and the bounds in mm between which a structure's median HD95 over patients lies.

    Empty where nothing was measured: cases that were scored on the training grid.
    """
    hit, false, missed = (sums[name] for name in LESIONS)
    if not (sums[HIGH] > 0).any() and not (hit + false + missed > 0).any():
        return {}
    surface, f1 = dsc_agg(sums[SURFACE] / 2, sums["dice_cases"]), dsc_agg(hit, 2 * hit + false + missed)
    found = {"surface_dice": mean_defined(surface), "lesion_f1": mean_defined(f1)}
    for place, name in enumerate(structures):
        low, high = median_between(sums[LOW][place]), median_between(sums[HIGH][place])
        found |= {
            f"surface_dice_{name}": surface[place],
            f"lesion_f1_{name}": f1[place],
            f"hd95_median_from_{name}": low[0] if low else None,
            f"hd95_median_to_{name}": high[1] if high else None,
        }
    return found
