"""Classification: several findings per case, each present, absent or unknown; by a trained head or by text prompts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

from common.batch import Batch
from common.config.schema import ClassificationTask
from common.metrics import SCORE_BINS, auroc_from_counts, mean_defined, score_bins
from common.orders import Sums
from common.tasks.base import Observation, Shapes, column, to_numpy

LABELS = "labels"


class Classification:
    """Logits (B, C) against ``labels`` (B, C): 1 present, 0 absent, -1 unknown.

    With ``zero_shot`` there is no head: the frozen model compares the image with prompts, and its logit is the
    difference between "is present" and "is not present".
    """

    kind = "classification"
    primary = "auroc"

    def __init__(self, spec: ClassificationTask):
        self.classes = list(spec.classes)
        self.outputs = len(self.classes)
        self.zero_shot = spec.zero_shot

    @property
    def sum_shapes(self) -> Shapes:
        histogram = (self.outputs, SCORE_BINS)
        return {"cases": (), "positives": histogram, "negatives": histogram}

    @property
    def curve_shapes(self) -> Shapes:
        return {}

    def head(self, dim: int) -> nn.Module | None:
        return None if self.zero_shot else nn.Linear(dim, self.outputs)

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        """Mean binary cross-entropy over the known labels."""
        labels = batch.target[LABELS].to(output.device, output.dtype)
        known = labels >= 0
        each = F.binary_cross_entropy_with_logits(output, labels.clamp(min=0), reduction="none")
        return (each * known).sum() / known.sum().clamp(min=1)

    def observe(self, output: Tensor, batch: Batch) -> list[Observation]:
        """``score`` (C,) logits and ``label`` (C,) per case."""
        scores, labels = to_numpy(output), to_numpy(batch.target[LABELS])
        return [{"score": score, "label": label} for score, label in zip(scores, labels, strict=True)]

    def sums(self, observations: Sequence[Observation]) -> Sums:
        """Histograms of scores (C, bins) of present and of absent findings."""
        scores, labels = (column(observations, name, width=self.outputs) for name in ("score", "label"))
        bins = score_bins(scores)
        return {
            "cases": np.array(float(len(observations))),
            "positives": _histograms(bins, labels == 1),
            "negatives": _histograms(bins, labels == 0),
        }

    def curve_sums(self, observations: Sequence[Observation], threshold: float) -> Sums:
        return {}

    def metrics(self, sums: Sums) -> dict[str, float | None]:
        """``auroc_<class>`` and their mean over the classes that have both present and absent cases."""
        each = [auroc_from_counts(p, n) for p, n in zip(sums["positives"], sums["negatives"], strict=True)]
        return {"auroc": mean_defined(each)} | {f"auroc_{c}": v for c, v in zip(self.classes, each, strict=True)}


def _histograms(bins: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Counts (C, bins) of the chosen cells of (n, C) bin numbers."""
    columns = range(bins.shape[1])
    return np.array([np.bincount(bins[chosen[:, c], c], minlength=SCORE_BINS) for c in columns], np.float64)
