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
    raise ConfigError(
        f"Newton's method needs an objective that is a sum over cases: a prognosis with loss cox or hazard, or a "
        f"binary or multi-label classification (objective logistic or ridge); step '{step.name}' has {_told(task)} and "
        f"objective '{asked or 'of the task'}'."
    )


def _told(task: Any) -> str:
    return f"{task.kind} ({getattr(task, 'loss', getattr(task, 'form', ''))})"
