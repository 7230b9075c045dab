"""Tasks: what a batch means. A task gives the head, the loss, and scores as sums that centers can add."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from common.data.findings import FINDINGS_TARGET
from common.data.records import withheld_for
from common.data.sources import named_sources
from common.errors import UnknownName
from common.plugins import Registry
from common.tasks.base import Observation, Sums, Task, merge_sums, pooled_metrics

__all__ = [
    "TASKS",
    "Observation",
    "Question",
    "Sums",
    "Task",
    "build_task",
    "merge_sums",
    "pooled_metrics",
    "question_of",
    "withheld_fields",
]

Known = Mapping[str, np.ndarray]


class Question(NamedTuple):
    """What a task answers; adapters for the same question stand in for each other.

    Args:
        about: a classification's target ("hpv"), the structures of a segmentation or of grounding ("GTVn+GTVp"), a
            masked task's sources; empty for a prognosis.
    """

    kind: str
    about: str


def question_of(spec: Any) -> Question:
    """The question of a task's spec."""
    if spec.kind == "classification":
        return Question(spec.kind, spec.target)
    if spec.kind == "masked":
        return Question(spec.kind, "+".join(sorted(source.name for source in named_sources(spec.sources))))
    outlined = spec.kind in ("grounding", "segmentation")
    return Question(spec.kind, "+".join(sorted(spec.structures)) if outlined else "")


def withheld_fields(spec: Any) -> frozenset[str]:
    """Fields that may reach neither the record nor the report text of a task: its target and the target's proxies.

    Outcome and follow-up are no fields of a record, so no task needs to withhold them.
    """
    if (own := getattr(spec, "withhold", None)) is not None:  # a plugin's task says so itself
        return frozenset(own)
    target = getattr(spec, "target", FINDINGS_TARGET)
    return frozenset() if target == FINDINGS_TARGET else withheld_for(target)


def _classification(spec: Any, known: Known | None) -> Task:
    from common.tasks.classification import Classification

    return Classification(spec, known)


def _grounding(spec: Any, known: Known | None) -> Task:
    from common.tasks.grounding import Grounding  # MONAI's boxes take seconds to import

    return Grounding(spec)


def _masked(spec: Any, known: Known | None) -> Task:
    from common.tasks.masked import Masked

    return Masked(spec)


def _prognosis(spec: Any, known: Known | None) -> Task:
    from common.tasks.prognosis import Prognosis

    return Prognosis(spec, known)


def _segmentation(spec: Any, known: Known | None) -> Task:
    from common.tasks.segmentation import Segmentation  # MONAI's losses take seconds to import

    return Segmentation(spec)


def _statistics(spec: Any, known: Known | None) -> Task:
    from common.tasks.unlearned.statistics import Statistics

    return Statistics()


TASKS: Registry[Callable[[Any, Known | None], Task]] = Registry(
    "task",
    "build",
    {
        "classification": _classification,
        "grounding": _grounding,
        "masked": _masked,
        "prognosis": _prognosis,
        "segmentation": _segmentation,
        "statistics": _statistics,
    },
)


def build_task(spec: Any, known: Known | None = None) -> Task:
    """The task of a step's spec. Raises UnknownName for an unknown kind or option.

    Args:
        known: what the federation has learned from the centers' sums so far (`Order.known`).
    """
    kind = str(getattr(spec, "kind", None))
    if kind not in TASKS:
        raise UnknownName("task", kind, TASKS)
    return TASKS[kind](spec, known)
