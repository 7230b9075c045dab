"""The one score of a task that may carry noise: a ratio of two sums, and the longest that one patient adds to both.

Means are over patients, each of whom adds at most 1 above and below the line: Dice of each structure (not the
aggregated one, whose volumes have no bound), recall of each class, what a masked task restores. Concordance and AUROC
are shares of pairs: of at most ``cohort`` patients, the first by their codes, each is in at most cohort - 1 pairs. Who
stands beyond that bound is left out; whoever comes or goes then changes either sum by at most cohort - 1 pairs all the
same, since of two patients who change places one takes pairs away and the other brings some.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from common.data.sources import named_sources
from common.metrics.concordance import harrell_counts
from common.metrics.overlap import dice_scores
from common.tasks import build_task
from common.tasks.base import Observation

EXCLUSIVE = ("multi_class", "ordinal")  # forms of a classification in which a patient is of one class
Parts = tuple[np.ndarray, np.ndarray]  # above and below the line, (E,) each


@dataclass(frozen=True)
class Ratio:
    """A task's noised score.

    Args:
        metric: its name, of the mean over entries.
        entries: names of what it is a mean over; each has a score of its own where there are several.
        parts: what some records add up to, above and below the line. Of means the records of one patient, of pairs one
            record of each patient.
        pairs: whether it is a share of pairs.
        most: the entries that one patient is in.
    """

    metric: str
    entries: tuple[str, ...]
    parts: Callable[[Sequence[Observation]], Parts]
    pairs: bool = False
    most: int = 1

    def longest(self, cohort: int) -> float:
        """How long what one patient adds is at most, both sums as one vector.

        Args:
            cohort: a public bound of the patients that are scored.
        """
        return math.sqrt(2 * self.most) * (max(cohort - 1, 1) if self.pairs else 1)

    def name(self, entry: str) -> str:
        """The metric of one entry."""
        return f"{self.metric}_{entry}"


def ratio_of(spec: Any) -> Ratio | None:
    """The score of a task's spec that may carry noise; None where none has a bound."""
    return RATIOS[spec.kind](spec) if spec.kind in RATIOS else None


def _segmentation(spec: Any) -> Ratio:
    structures = tuple(spec.structures)
    return Ratio("dice", structures, _dice, most=len(structures))


def _dice(records: Sequence[Observation]) -> Parts:
    both = np.array([record["intersection"] for record in records], np.float64)
    volumes = np.array([record["predicted"] + record["truth"] for record in records], np.float64)
    return dice_scores(both, volumes).sum(axis=0), (volumes > 0).sum(axis=0).astype(np.float64)


def _masked(spec: Any) -> Ratio:
    sources = tuple(source.name for source in named_sources(spec.sources))
    return Ratio("restored", sources, _restored, most=len(sources))


def _restored(records: Sequence[Observation]) -> Parts:
    restored, shown = (np.array([record[name] for record in records]) for name in ("restored", "shown"))
    return np.clip(restored, 0, 1).sum(axis=0), shown.sum(axis=0)


def _prognosis(spec: Any) -> Ratio:
    return Ratio("c_index", ("",), _concordant, pairs=True)


def _concordant(records: Sequence[Observation]) -> Parts:
    time, event, risk = (np.array([r[name] for r in records], np.float64) for name in ("time", "event", "risk"))
    found = harrell_counts(time, event, risk)
    return np.array([found.concordant + found.tied / 2]), np.array([found.comparable])


def _classification(spec: Any) -> Ratio:
    classes = tuple(spec.classes)
    if spec.form in EXCLUSIVE:
        return Ratio("balanced_accuracy", classes, partial(_recalled, spec))
    return Ratio("auroc", classes, _won, pairs=True, most=len(classes))


def _recalled(spec: Any, records: Sequence[Observation]) -> Parts:
    table = build_task(spec).sums(records)["confusion"]
    return np.diagonal(table).copy(), table.sum(axis=1)


def _won(records: Sequence[Observation]) -> Parts:
    """Of pairs of a patient with and one without a finding, those in which the first has the higher score."""
    scores, labels = (np.array([record[name] for record in records], np.float64) for name in ("score", "label"))
    won, pairs = [], []
    for own, label in zip(scores.T, labels.T, strict=True):
        difference = own[label == 1][:, None] - own[label == 0][None, :]
        won.append(float((difference > 0).sum() + (difference == 0).sum() / 2))
        pairs.append(float(difference.size))
    return np.array(won), np.array(pairs)


RATIOS: dict[str, Callable[[Any], Ratio]] = {  # kind of a task -> its score; grounding has none: boxes by their score
    "classification": _classification,
    "masked": _masked,
    "prognosis": _prognosis,
    "segmentation": _segmentation,
}
