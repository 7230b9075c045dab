"""Tasks: what a batch means. A task gives the head, the loss, and scores as sums that centers can add."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from common.errors import UnknownName
from common.tasks.base import Observation, Sums, Task, merge_sums, pooled_metrics

__all__ = ["TASKS", "Observation", "Sums", "Task", "build_task", "merge_sums", "pooled_metrics"]


def _classification(spec: Any) -> Task:
    from common.tasks.classification import Classification

    return Classification(spec)


def _prognosis(spec: Any) -> Task:
    from common.tasks.prognosis import Prognosis

    return Prognosis(spec)


def _segmentation(spec: Any) -> Task:
    from common.tasks.segmentation import Segmentation  # MONAI's losses take seconds to import

    return Segmentation(spec)


TASKS: dict[str, Callable[[Any], Task]] = {
    "classification": _classification,
    "prognosis": _prognosis,
    "segmentation": _segmentation,
}


def build_task(spec: Any) -> Task:
    """The task of a step's spec. Raises UnknownName for an unknown kind or option."""
    kind = getattr(spec, "kind", None)
    if kind not in TASKS:
        raise UnknownName("task", kind, TASKS)
    return TASKS[kind](spec)
