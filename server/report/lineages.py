"""Lineages that several steps wrote, with the yardsticks of continual learning, for the report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from common.metrics import LOWER_IS_BETTER
from server.evaluation.course import burden, replayed
from server.evaluation.matrix import columns, score_matrix
from server.evaluation.yardsticks import Yardsticks, of_matrix
from server.report.reading.record import RunRecord, StepRecord
from server.report.tables import Arm, exact
from server.report.words import DASH, metric_name, number, signed


def lineages(run: RunRecord, arm: Arm) -> list[dict[str, Any]]:
    """One row for each lineage that several steps wrote, of tasks that one metric judges, with its yardsticks."""
    shown, steps = columns(arm.rows, arm.metrics), {step.name: step for step in run.finished}
    scores, found = score_matrix(arm.rows, arm.metrics), []
    for name in dict.fromkeys(str((step.finished or {}).get("lineage", "")) for step in run.finished):
        homes = {c: arm.learned.get(c.key) for c in shown}
        own = [c for c, home in homes.items() if home in steps and (steps[home].finished or {}).get("lineage") == name]
        own.sort(key=lambda column: list(steps).index(arm.learned[column.key]))
        for metric in dict.fromkeys(column.metric for column in own):
            keys = [column.key for column in own if column.metric == metric]
            sign = -1 if metric in LOWER_IS_BETTER else 1
            what = of_matrix(scores, keys, learned=arm.learned, sign=sign) if len(keys) > 1 else None
            if what is not None:
                written = [steps[arm.learned[key]] for key in keys]
                head = {"name": name, "metric": metric_name(metric), "tasks": len(keys), "acc": number(sign * what.acc)}
                turned = {key: signed(getattr(what, key)) for key in ("bwt", "relative_bwt", "fwt")}
                found.append({**head, **turned, "forgetting": exact(what.forgetting), **_five(run, what, written)})
    return found


def _five(run: RunRecord, what: Yardsticks, written: Sequence[StepRecord]) -> dict[str, str]:
    """The names of the newest benchmark of medical segmentation (Wang et al., arXiv 2605.06160), but plasticity, which
    needs adapters that were trained alone (`study=continual_methods`)."""
    frozen = float(run.begun.get("backbone", {}).get("parameters", 0))
    own = max(sum(step.started.get("parts", {}).values()) for step in written)
    again = burden(replayed(step.rounds, step.plan.get("rehearses", {})) for step in written)
    return {
        "stability": exact(what.stability),
        "forward": exact(what.forward_generalizability),
        "parameters": f"{own / frozen:.2%}" if frozen else DASH,
        "replay": DASH if again is None else f"{again:.0%}",
    }
