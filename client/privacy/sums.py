"""Sums over a center's patients, of records and rows in which nothing is shared by a few; the gate does the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from client.privacy.path import check_weight, point_of, walk
from client.privacy.record import TARGET, Question
from client.privacy.rows import Shared, shared_rows
from common.adapters.compatibility import SOURCES, feeds
from common.config.objective import objective_name
from common.exact.columns import Layout, Rows
from common.exact.step import objective_of, round_sums, target_of
from common.protocol.messages import Order, Sums
from common.tasks import Observation, Task, build_task, question_of
from common.tasks.cuts import EVENTS, event_histogram


def scores_of(task: Task, observations: Sequence[Observation], order: Order, *, minimum: int) -> Sums:
    """A task's scores, and the sums for curves where the order asks for them.

    Scores are of the records themselves. What counts patients by time, or by a threshold, is of records that were dealt
    into cells of the minimum (`Task.together`); where that cannot be it is zero. Histograms and tables of scores are
    dealt by the gate. So whatever the state and the threshold, no two answers over the same patients count some by
    another cell unless as many as the minimum. Sums of a score itself (losses, mean risks, concordant pairs, overlaps)
    are over all patients and of no cell: a model that was made for it may say something of one patient in them.
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


def event_times_of(order: Order, target: Mapping[str, Tensor], *, minimum: int) -> Sums:
    """When events happened, in coarse bins up to the task's horizon; zeros where an outcome is of a few.

    Times are those of whole cells of patients before they meet the horizon, which is the order's.
    """
    together = build_task(order.step.task).together_labels(target, minimum=minimum)
    days, event = (target if together is None else together)["days"].numpy(), target["event"].numpy()
    counts = event_histogram(days, event, horizon=order.step.task.horizon_days)
    return {EVENTS: counts if together is not None else np.zeros_like(counts)}


def shared_of(order: Order, layout: Layout, rows: Rows, *, target: Mapping[str, Tensor], minimum: int) -> Shared:
    """The rows of a linear part as they may be summed.

    Args:
        target: the same cases' targets, before any grid.
    """
    objective = objective_name(order.step)
    together = build_task(order.step.task).together_labels(target, minimum=minimum) if objective == "hazard" else None
    dealt = None if together is None else target_of(order.step, together)
    return shared_rows(layout, rows, objective=objective, minimum=minimum, target=dealt)


def exact_of(order: Order, layout: Layout, shared: Shared, *, vault: Path, minimum: int, most: int) -> Sums:
    """One answer of an exact fit, over rows as they may be summed, once its question was checked.

    Args:
        most: points that the cohort answers about any one column or target, for good.

    Raises:
        PolicyRefusal: a question off the fit's path, or at a point that shows too few patients.
    """
    objective = objective_of(order.step)
    point = point_of(order.known, layout, objective) if objective is not None and order.round > 0 else None
    if objective is not None and point is not None and not shared.silent:
        check_weight(point, layout, shared.rows, objective, minimum=minimum, patient=shared.patient)
    if objective is not None and minimum > 1:
        walk(vault, order, point, about=question_of_rows(order, layout).about, most=most)
    return round_sums(order.step, layout, shared.rows, round=order.round, known=order.known)


def question_of_rows(order: Order, layout: Layout) -> Question:
    """What an exact fit asks: each variable of the record, features by what they are made from, and the target: its
    product with the intercept is there whatever the columns. Moments are of columns alone, and are about the target all
    the same, so that a fit's later questions can be answered over the same patients."""
    columns = {_made_from(order.step.modalities, name) for name in layout.values}
    return Question("rows", frozenset(columns | _targets(order.step.task)))


def question_of_labels(order: Order) -> Question:
    """What label sums and histograms of event times ask."""
    return Question("labels", frozenset(_targets(order.step.task)))


def question_of_keepsakes(order: Order) -> Question:
    """What sums at a step's end ask, whichever state they are of."""
    return Question("keepsakes", frozenset({"|".join(question_of(order.step.task))}))


def question_of_scores(order: Order) -> Question:
    """What scores ask, whichever state is scored."""
    return Question("scores", frozenset(_answers(order.step.task)))


def _answers(spec: Any) -> set[str]:
    """A task's question; of a segmentation one for each structure."""
    question = question_of(spec)
    return {f"{question.kind}|{about}" for about in getattr(spec, "structures", None) or [question.about]}


def _targets(spec: Any) -> set[str]:
    return {TARGET + answer for answer in _answers(spec)}


def _made_from(modalities: Sequence[str], name: str) -> str:
    """A column as itself or, of a frozen feature or a voxel's value, what it is made from.

    In whatever order, and by whichever frozen model: a stage that changes next to nothing makes another one.
    """
    source, is_made, _ = name.partition(".")
    if not is_made:
        return name
    inputs = {m for m in modalities if feeds(m, source)} if source in SOURCES else {source}
    return f"{source}|{'+'.join(sorted(inputs))}"


def with_fit(sums: Sums, losses: Sequence[float]) -> Sums:
    """Scores with the summed loss and the number of cases."""
    return sums | {
        "fit.loss": np.array(sum(losses), np.float64),
        "fit.cases": np.array(len(losses), np.float64),
    }
