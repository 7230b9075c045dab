"""What each arm of a continual study costs, and how fast it learns."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from simulations.studies.continual.matrices import Outcomes, of_arm
from simulations.studies.continual.running import WHOLE
from simulations.studies.page import Table, Value


def cost_table(title: str, arms: Sequence[str], outcomes: Outcomes, setting: str) -> Table:
    """What each arm costs and how fast it learns: rounds of the whole run; means over its steps; seconds in all."""
    rows: list[list[Value]] = []
    for arm in arms:
        own = [outcome.costs for outcome in of_arm(outcomes, arm, setting)]
        steps = [cost for costs in own for name, cost in costs.items() if name != WHOLE]
        rounds = fmean(cost["rounds"] for cost in steps) * len(steps) / len(own) if steps else None
        row: list[Value] = [arm, None if rounds is None else f"{rounds:.0f}"]
        for name, form in PER_STEP.items():
            values = [cost[name] for cost in steps if cost.get(name) is not None]
            row.append(form % fmean(values) if values else None)
        rows.append([*row, f"{fmean(costs[WHOLE]['seconds'] for costs in own):.0f}" if own else None])
    return Table(
        title, ["arm", "rounds", *(WORDS.get(name, name) for name in PER_STEP), "seconds in all"], rows,
        "A step's means: kB of a round and center, kB that the bank keeps for later steps, seconds, cases that "
        "memories gave, the round that is worth 95 % of the best one by validation cases, and the mean height of that "
        "curve.",
    )  # fmt: skip


PER_STEP = {
    "kB up": "%.0f", "kB down": "%.0f", "kB stored": "%.0f", "seconds": "%.1f", "replayed": "%.0f",
    "rounds to 95 %": "%.1f", "area": "%.3f",
}  # fmt: skip
WORDS = {"seconds": "seconds a step", "replayed": "cases replayed", "area": "area under the curve"}
