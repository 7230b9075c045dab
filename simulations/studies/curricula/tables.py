"""Tables that both studies have: one arm against each other one, and what each arm costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from simulations.studies.curricula.arms import Arms
from simulations.studies.page import Table, Value

INTERVALS = (
    "Intervals: 95 %, percentile bootstrap over test patients within centers (small ones together); they do not cover "
    "the choice of training patients."
)


def against(arms: Arms, full: str, columns: Sequence[tuple[str, str, str]]) -> Table:
    """Paired differences of an arm to every other one; no rows where it was not run.

    Args:
        columns: task, metric, and what the column is called.
    """
    rows: list[list[Value]] = []
    for other in (name for name in arms.chosen if full in arms.chosen and name != full):
        found = [arms.difference(full, other, task, metric) for task, metric, _ in columns]
        rows.append([arms.chosen[other].said, *(one.text(signed=True) for one in found)])
    title = f"{arms.chosen[full].said if rows else full} minus each other arm, paired over patients"
    return Table(title, ["minus", *(said for *_, said in columns)], rows)


def cost(arms: Arms, *, is_stage: Callable[[str], bool]) -> Table:
    """What each arm takes: bytes of an update in stages and tasks, processor time, bytes in a vault."""
    rows: list[list[Value]] = []
    for name, arm in arms.chosen.items():
        stages = arms.mean(name, lambda found: _mean([v for step, v in found.up.items() if is_stage(step)]))
        tasks = arms.mean(name, lambda found: _mean([v for step, v in found.up.items() if not is_stage(step)]))
        seconds, vault = arms.mean(name, lambda found: found.seconds), arms.mean(name, lambda found: found.vault)
        rows.append([arm.said, _kilo(stages), _kilo(tasks), None if seconds is None else round(seconds), _kilo(vault)])
    columns = ["arm", "kB up, a stage", "kB up, a task", "processor s", "kB in a vault"]
    return Table("What it costs", columns, rows, "kB up: one center's reply in one round, measured.")


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _kilo(value: float | None) -> int | None:
    return None if value is None else round(value / 1e3)
