"""Sums over a center's patients, of records and rows in which nothing is shared by a few; the gate does the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from client.privacy.rows import Shared, shared_rows
from common.config.objective import objective_name
from common.exact.columns import Layout, Rows
from common.protocol.messages import Order, Sums
from common.tasks import Observation, Task


def scores_of(task: Task, observations: Sequence[Observation], order: Order, *, minimum: int) -> Sums:
    """A task's scores, and the sums for curves where the order asks for them.

    Scores are of the records themselves. What counts patients by time is of records with common times; where they
    cannot be made common it is zero.
    """
    sums = dict(task.sums(observations))
    threshold = order.threshold or 0.0
    together = task.together(observations, threshold=threshold, minimum=minimum)
    if together is not observations:
        common = task.sums(together or [])
        sums |= {name: common[name] for name in sorted(task.by_time)}
    return sums | task.curve_sums(together or [], threshold) if order.wants_curves else sums


def labels_of(task: Task, target: Mapping, *, minimum: int) -> Sums:
    """A task's sums over training targets; none where they cannot be made common."""
    together = task.together_labels(target, minimum=minimum)
    return {} if together is None else task.label_sums(together)


def shared_of(order: Order, layout: Layout, rows: Rows, *, minimum: int) -> Shared:
    """The rows of a linear part as they may be summed."""
    return shared_rows(layout, rows, objective=objective_name(order.step), minimum=minimum)


def with_fit(sums: Sums, losses: Sequence[float]) -> Sums:
    """Scores with the summed loss and the number of cases."""
    return sums | {
        "fit.loss": np.array(sum(losses), np.float64),
        "fit.cases": np.array(len(losses), np.float64),
    }
