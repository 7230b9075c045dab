"""Which sum over cases a step that is fitted exactly minimises, read from its declaration alone."""

from __future__ import annotations

from typing import Any

from common.config.step import Step
from common.errors import ConfigError

RIDGE = "ridge"


def objective_name(step: Step) -> str:
    """cox, hazard, logistic or ridge."""
    task, asked = step.task, step.federation.objective
    if task.kind == "prognosis" and task.loss in ("cox", "hazard") and asked in ("", task.loss):
        return task.loss
    if task.kind == "classification" and task.form in ("binary", "multi_label") and asked in ("", "logistic", RIDGE):
        return asked or "logistic"
    if task.kind == "segmentation" and asked in ("", "logistic"):
        return "logistic"
    raise ConfigError(
        f"Newton's method needs an objective that is a sum over cases: a prognosis with loss cox or hazard, a binary "
        f"or multi-label classification (objective logistic or ridge), or a segmentation; step '{step.name}' has "
        f"{_told(task)} and objective '{asked or 'of the task'}'."
    )


def _told(task: Any) -> str:
    return f"{task.kind} ({getattr(task, 'loss', getattr(task, 'form', ''))})"
