"""Lineages that several steps wrote, with the yardsticks of continual learning, for the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from common.metrics import LOWER_IS_BETTER
from server.evaluation.course import burden, replayed
from server.evaluation.matrix import Row, columns, score_matrix
from server.evaluation.yardsticks import Yardsticks, of_matrix
from server.report.reading.record import RunRecord, StepRecord
from server.report.tables import Arm, exact
from server.report.words import DASH, metric_name, number, signed


@dataclass(frozen=True)
class Written:
    """A lineage that several steps wrote, of tasks that one metric judges.

    Attributes:
        parameters: numbers of its adapter, the largest of its steps', as a share of the frozen model's.
        replay: cases from memories as a share of all that its steps trained on.
    """

    name: str
    metric: str
    tasks: int
    yardsticks: Yardsticks
    parameters: float | None
    replay: float | None


def written(run: RunRecord, rows: Sequence[Row], metrics: Mapping[str, str]) -> list[Written]:
    """Every such lineage of a run, in the order of its steps."""
    shown, steps, learned = columns(rows, metrics), {step.name: step for step in run.finished}, run.learned()
    scores, found = score_matrix(rows, metrics), []
    for name in dict.fromkeys(str((step.finished or {}).get("lineage", "")) for step in run.finished):
        homes = {c: learned.get(c.key) for c in shown}
        own = [c for c, home in homes.items() if home in steps and (steps[home].finished or {}).get("lineage") == name]
        own.sort(key=lambda column: list(steps).index(learned[column.key]))
        for metric in dict.fromkeys(column.metric for column in own):
            keys = [column.key for column in own if column.metric == metric]
            sign = -1 if metric in LOWER_IS_BETTER else 1
            what = of_matrix(scores, keys, learned=learned, sign=sign) if len(keys) > 1 else None
            if what is not None:
                cost = _cost(run, [steps[learned[key]] for key in keys])
                found.append(Written(name, metric, len(keys), what, *cost))
    return found


def _cost(run: RunRecord, steps: Sequence[StepRecord]) -> tuple[float | None, float | None]:
    frozen = float(run.begun.get("backbone", {}).get("parameters", 0))
    own = max(sum(step.started.get("parts", {}).values()) for step in steps)
    again = burden(replayed(step.rounds, step.plan.get("rehearses", {})) for step in steps)
    return own / frozen if frozen else None, again


def lineages(run: RunRecord, arm: Arm) -> list[dict[str, Any]]:
    """The same as the report shows it.

    Stability, forward generalizability, parameter efficiency and replay burden are four of the five names of the newest
    benchmark of medical segmentation (Wang et al., arXiv 2605.06160). Plasticity, the fifth, needs adapters that were
    trained alone (``study=continual_methods``).
    """
    found = []
    for one in written(run, arm.rows, arm.metrics):
        what, sign = one.yardsticks, -1 if one.metric in LOWER_IS_BETTER else 1
        row = {"name": one.name, "metric": metric_name(one.metric), "tasks": one.tasks, "acc": number(sign * what.acc)}
        row |= {key: signed(getattr(what, key)) for key in ("bwt", "relative_bwt", "fwt")}
        row |= {"forgetting": exact(what.forgetting), "stability": exact(what.stability)}
        row |= {"forward": exact(what.forward_generalizability)}
        row |= {"parameters": DASH if one.parameters is None else f"{one.parameters:.2%}"}
        row |= {"replay": DASH if one.replay is None else f"{one.replay:.0%}"}
        found.append(row)
    return found
