"""Paired scores: what of two models' records of the same patients is compared, as sums, with what these can be.

Each task says which scores a patient has by itself: a segmentation the Dice of each structure that the patient has, a
classification the Brier score (lower is better) and its place among the others (the area under the ROC curve), a
prognosis the pairs that its risk orders rightly. Whether a patient counts depends on labels alone, never on a model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from common.metrics.concordance import own_pairs
from common.metrics.overlap import dice_scores
from common.metrics.paired import (
    MEAN,
    PAIRS,
    Difference,
    PairedSums,
    RocSums,
    paired_difference,
    paired_sums,
    roc_difference,
    roc_sums,
    stratified,
)
from common.protocol.messages import Sums
from common.tasks.base import Observation, Shapes, Task, column, merge_sums
from common.tasks.bounds import CASES, AtMost, impossible
from common.tasks.cells import Cells, Mean, Table

COUNT, EVENTS, LABELS = "paired.n", "paired.events", "roc.labels"
OF_SCORES = {field: f"paired.{field}" for field in ("a", "b", "w", "dd", "dw", "ww")}
OF_PLACES = {field: f"roc.{field}" for field in ("a", "b", "positives_dd", "negatives_dd")}
SIGNED = frozenset({OF_SCORES["dw"]})
SLACK = 1e-6


@dataclass(frozen=True)
class Columns:
    """Scores of two models by patient and metric, (n, K) each, with weights; and for areas under the ROC curve scores
    (n, C) with the truth, of which -1 is unknown."""

    a: np.ndarray
    b: np.ndarray
    weight: np.ndarray
    places: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
    events: float | None = None


@dataclass(frozen=True)
class Compared:
    """How a kind of task is compared.

    Args:
        metrics: of a task's spec, the names of its scores; the first is the one that the verdict is about, unless there
            are areas under the ROC curve.
        areas: the same of those areas.
        order: of `common.metrics.paired`.
    """

    metrics: Callable[[Any], list[str]]
    areas: Callable[[Any], list[str]]
    columns: Callable[[Task, Task, Sequence[Observation], Sequence[Observation]], Columns]
    order: int = MEAN
    has_events: bool = False


def metrics_compared(spec: Any) -> list[str]:
    """Names of what two models of a task are compared in, the one that the verdict is about first."""
    kind = COMPARED[spec.kind]
    return [*kind.areas(spec), *kind.metrics(spec)]


def paired_shapes(spec: Any) -> Shapes:
    """Name -> shape of every sum of a comparison of two models of a task."""
    kind = COMPARED[spec.kind]
    width, areas = len(kind.metrics(spec)), len(kind.areas(spec))
    shapes: Shapes = {"cases": (), COUNT: (width,)} | dict.fromkeys(OF_SCORES.values(), (width,))
    if kind.has_events:
        shapes[EVENTS] = ()
    return shapes | ({LABELS: (areas, 2)} | dict.fromkeys(OF_PLACES.values(), (areas,)) if areas else {})


def paired_cells(spec: Any) -> list[Cells]:
    """How these sums count patients: a score of a few is left out, and all areas of an outcome that a few have."""
    scores = tuple(OF_SCORES.values())
    cells: list[Cells] = []
    if COMPARED[spec.kind].has_events:
        cells.append(Table((EVENTS,), axes=0, alike=(COUNT, *scores)))
    cells.append(Mean(COUNT, scores))
    if COMPARED[spec.kind].areas(spec):
        cells.append(Table((LABELS,), axes=1, alike=tuple(OF_PLACES.values())))
    return cells


def paired_scores(tasks: tuple[Task, Task], a: Sequence[Observation], b: Sequence[Observation], *, spec: Any) -> Sums:
    """The sums of two models' records of the same patients, in the same order; the gate does the rest.

    Args:
        tasks: the first model's, which made ``a``, and the second's.
    """
    found = COMPARED[spec.kind].columns(*tasks, a, b)
    each = [
        paired_sums(*(values[:, k] for values in (found.a, found.b, found.weight))) for k in range(found.a.shape[1])
    ]
    sums: Sums = {"cases": np.array(float(len(a))), COUNT: np.array([one.n for one in each])}
    sums |= {name: np.array([getattr(one, field) for one in each]) for field, name in OF_SCORES.items()}
    if found.events is not None:
        sums[EVENTS] = np.array(found.events)
    return sums | (_places(*found.places) if found.places is not None else {})


def differences(spec: Any, by_center: Mapping[str, Sums]) -> dict[str, dict[str, Difference]]:
    """Metric -> center, and ``pooled``, -> the second model's score minus the first's; who has none is not there."""
    kind = COMPARED[spec.kind]
    found: dict[str, dict[str, Difference]] = {}
    for place, metric in enumerate(kind.areas(spec)):
        areas = {center: _roc(sums, place) for center, sums in by_center.items()}
        told = {center: one for center, sums in areas.items() if (one := roc_difference(sums)) is not None}
        pairs = [areas[center].positives * areas[center].negatives for center in told]
        pooled = stratified(list(told.values()), pairs)
        found[metric] = told | ({} if pooled is None else {"pooled": pooled})
    everyone = dict(by_center) | ({"pooled": merge_sums(by_center.values())} if by_center else {})
    for place, metric in enumerate(kind.metrics(spec)):
        each = {c: paired_difference(_scores(sums, place), order=kind.order) for c, sums in everyone.items()}
        found[metric] = {center: one for center, one in each.items() if one is not None}
    return found


def wrong_with(spec: Any, sums: Sums, most: float) -> str:
    """The first thing about a comparison's finite sums that no patients can make, as a phrase; empty where none."""
    width = len(COMPARED[spec.kind].metrics(spec))
    bounds = [AtMost((COUNT,), CASES)]
    if COMPARED[spec.kind].order == MEAN:
        bounds += [AtMost((name,), COUNT) for name in OF_SCORES.values()]
    else:
        bounds += [AtMost((OF_SCORES[one],), OF_SCORES["w"]) for one in ("a", "b")]
        bounds += [AtMost((OF_SCORES["w"],), CASES, power=2), AtMost((OF_SCORES["dd"],), OF_SCORES["ww"])]
    if EVENTS in sums:
        bounds.append(AtMost((EVENTS,), CASES))
    found = impossible(sums, bounds=bounds, signed=SIGNED, cases=most)
    if found:
        return found
    for place in range(width):
        one = _scores(sums, place)
        d, slack = one.b - one.a, SLACK * (1 + one.n * one.dd + one.dd * one.ww)
        if d**2 > one.n * one.dd + slack or one.w**2 > one.n * one.ww + SLACK * (1 + one.n * one.ww):
            return "sums of paired scores are longer than their squares allow"
        if one.dw**2 > one.dd * one.ww + slack:
            return "cross sums of paired scores are longer than their squares allow"
    return _wrong_places(spec, sums)


def _wrong_places(spec: Any, sums: Sums) -> str:
    for place in range(len(COMPARED[spec.kind].areas(spec))):
        one = _roc(sums, place)
        m, n = one.positives, one.negatives
        if m + n > float(sums["cases"]) + SLACK:
            return "more patients have an outcome than there are"
        if max(one.a, one.b, one.positives_dd) > m + SLACK or one.negatives_dd > n + SLACK:
            return "placements are larger than there are patients"
        if (one.b - one.a) ** 2 > m * one.positives_dd + SLACK * (1 + m):
            return "sums of placements are longer than their squares allow"
    return ""


def _scores(sums: Sums, place: int) -> PairedSums:
    values = {field: float(sums[name][place]) for field, name in OF_SCORES.items()}
    return PairedSums(n=float(sums[COUNT][place]), **values)


def _roc(sums: Sums, place: int) -> RocSums:
    positives, negatives = (float(count) for count in sums[LABELS][place])
    return RocSums(positives, negatives, **{field: float(sums[name][place]) for field, name in OF_PLACES.items()})


def _places(a: np.ndarray, b: np.ndarray, truth: np.ndarray) -> Sums:
    each = []
    for place in range(a.shape[1]):
        known = truth[:, place] >= 0
        each.append(roc_sums(a[known, place], b[known, place], truth[known, place] > 0))
    sums = {name: np.array([getattr(one, field) for one in each]) for field, name in OF_PLACES.items()}
    return sums | {LABELS: np.array([[one.positives, one.negatives] for one in each])}


# ------------------------------------------------------------------------------------------------------- segmentation


def _structures(spec: Any) -> list[str]:
    names = [f"dice_{name}" for name in spec.structures]
    return ["dice"] if len(names) == 1 else ["dice", *names]


def _dice(first: Task, second: Task, a: Sequence[Observation], b: Sequence[Observation]) -> Columns:
    """Dice of the structures that a patient has, and the mean over these; what a model finds where there is nothing is
    no overlap, and not in it."""
    width = len(getattr(first, "structures"))  # noqa: B009 - of a segmentation, which Task does not know
    truth = column(a, "truth", width=width) > 0
    scores = [_dice_of(records, width) for records in (a, b)]
    has = truth.sum(axis=1, keepdims=True)
    means = [(own * truth).sum(axis=1, keepdims=True) / np.maximum(has, 1) for own in scores]
    if width == 1:
        return Columns(means[0], means[1], (has > 0).astype(np.float64))
    both = [np.concatenate([mean, own * truth], axis=1) for mean, own in zip(means, scores, strict=True)]
    return Columns(both[0], both[1], np.concatenate([has > 0, truth], axis=1).astype(np.float64))


def _dice_of(records: Sequence[Observation], width: int) -> np.ndarray:
    both, predicted, truth = (column(records, name, width=width) for name in ("intersection", "predicted", "truth"))
    return dice_scores(both, predicted + truth)


# ----------------------------------------------------------------------------------------------------- classification


def _areas(spec: Any) -> list[str]:
    return ["auroc"] if len(spec.classes) == 1 else [f"auroc_{name}" for name in spec.classes]


def _classified(first: Any, second: Any, a: Sequence[Observation], b: Sequence[Observation]) -> Columns:
    """Brier scores, the mean over a patient's known classes, and log-odds with the truth for areas."""
    odds, shares = zip(*(task.read(records) for task, records in ((first, a), (second, b))), strict=True)
    truth = first.truth(a)  # (n, C) of 1, 0 and -1
    known = truth >= 0
    has = known.sum(axis=1, keepdims=True)
    brier = [(((own - truth) ** 2) * known).sum(axis=1, keepdims=True) / np.maximum(has, 1) for own in shares]
    weight = (has > 0).astype(np.float64)
    return Columns(brier[0], brier[1], weight, places=(odds[0], odds[1], truth))


# ---------------------------------------------------------------------------------------------------------- prognosis


def _ordered(first: Task, second: Task, a: Sequence[Observation], b: Sequence[Observation]) -> Columns:
    """Pairs that a patient is part of, and how many of them each model orders rightly; Harrell's, ties one half."""
    time, event = column(a, "time"), column(a, "event")
    (won_a, pairs), (won_b, _) = (own_pairs(time, event, column(records, "risk")) for records in (a, b))
    return Columns(won_a[:, None], won_b[:, None], pairs[:, None], events=float((event > 0).sum()))


def _none(spec: Any) -> list[str]:
    return []


COMPARED: Mapping[str, Compared] = {
    "classification": Compared(lambda spec: ["brier"], _areas, _classified),
    "prognosis": Compared(lambda spec: ["c_index"], _none, _ordered, order=PAIRS, has_events=True),
    "segmentation": Compared(_structures, _none, _dice),
}
