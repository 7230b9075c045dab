"""Matrices: the scores R[step][task] of an arm, what the field reads off them, and the tables of a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev

from server.evaluation.yardsticks import Yardsticks, yardsticks
from simulations.studies.continual.arms import ALONE, FEW, JOINT, TOGETHER, Arrival
from simulations.studies.continual.running import WHOLE, Outcome, Piece
from simulations.studies.page import Table, Value

Row = list[float | None]
Outcomes = Mapping[Piece, Outcome]


def of_arm(outcomes: Outcomes, arm: str, setting: str) -> list[Outcome]:
    """What an arm left in a setting, seed by seed."""
    return [outcome for piece, outcome in outcomes.items() if (piece.arm, piece.setting) == (arm, setting)]


def center_row(outcome: Outcome, step: str, centers: Sequence[str], metric: str) -> Row:
    """A step's own state at each center."""
    return [outcome.value(step=step, task=step, metric=metric, center=center) for center in centers]


def start_row(outcome: Outcome, step: str, centers: Sequence[str], metric: str) -> Row:
    """The state that a step begins with, at each center."""
    return [outcome.value_at_start(task=step, metric=metric, center=center) for center in centers]


def task_row(outcome: Outcome, step: str, arrivals: Sequence[Arrival], metric: str) -> Row:
    """After a step, each structure that a finished step has learned, at the centers that outline it."""
    found: Row = []
    for arrival in arrivals:
        name = f"{metric}_{arrival.structure}"
        own = [outcome.value(step=step, task=task, metric=name, center="pooled") for task in (TOGETHER, arrival.name)]
        found.append(next((value for value in own if value is not None), None))
    return found


def by_arrival(outcome: Outcome, step: str, arrivals: Sequence[Arrival], metric: str) -> Row:
    """After a step, the score of what each arrival brought: its task's, or the mean over its centers."""
    if arrivals[0].structure is not None:
        return task_row(outcome, step, arrivals, metric)
    return [average(center_row(outcome, step, arrival.centers, metric)) for arrival in arrivals]


def diagonal(outcome: Outcome, arrivals: Sequence[Arrival], metric: str) -> Row:
    """Each arrival's score after its own step."""
    return [by_arrival(outcome, a.name, arrivals, metric)[place] for place, a in enumerate(arrivals)]


def _before(outcome: Outcome, arrivals: Sequence[Arrival], metric: str) -> Row:
    """Row 0: what arrivals score before any training; unknown of tasks, whose steps begin later."""
    if arrivals[0].structure is not None:
        return [None] * len(arrivals)
    return [average(start_row(outcome, arrivals[0].name, arrival.centers, metric)) for arrival in arrivals]


def average(values: Sequence[float | None]) -> float | None:
    """Mean of those that are known."""
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def over_seeds(rows: Sequence[Row]) -> Row:
    """Column by column the mean over seeds."""
    return [average(column) for column in zip(*rows, strict=True)]


def cells(rows: Sequence[Row], *, scale: float = 100.0) -> list[Value]:
    """Each column and the average, in percent, with the standard deviation over seeds where there are several."""
    each = [*zip(*rows, strict=True), tuple(average(row) for row in rows)]
    return [_cell([scale * v for v in column if v is not None]) for column in each]


def _cell(values: Sequence[float]) -> Value:
    if not values:
        return None
    return f"{fmean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")


def measured(rows: Sequence[Row], *, before: Row, dedicated: Row | None) -> Yardsticks | None:
    """What a square matrix says; None where a cell that must have a score has none."""
    if any(rows[t][j] is None for t in range(len(rows)) for j in range(t + 1)):
        return None
    own = None if dedicated is None else [value for value in dedicated if value is not None]
    complete = own if own is not None and len(own) == len(rows) else None
    return yardsticks(rows, before=before, dedicated=complete)


SHOWN = ("acc", "bwt", "fwt", "forgetting", "intransigence")  # in points


def yardstick_row(found: Sequence[Yardsticks | None], joint: Sequence[float | None]) -> list[Value]:
    """Means over seeds: `SHOWN` in points, plasticity, and how far the average is behind that of the joint arm."""
    known = [one for one in found if one is not None]
    row: list[Value] = []
    for name in SHOWN:
        row.append(_cell([100 * v for one in known if (v := getattr(one, name)) is not None]))
    plastic = [one.plasticity for one in known if one.plasticity is not None]
    behind = [100 * (j - one.acc) for one, j in zip(found, joint, strict=True) if one is not None and j is not None]
    return [*row, f"{fmean(plastic):.3f}" if plastic else None, _cell(behind)]


YARDSTICKS = [
    "arm", "ACC", "BWT (GEM)", "FWT (GEM)", "forgetting (Chaudhry)", "intransigence (dedicated)", "plasticity",
    "behind joint",
]  # fmt: skip


def yardstick_table(
    title: str, arms: Sequence[str], outcomes: Outcomes, setting: str, arrivals: Sequence[Arrival], metric: str
) -> Table:
    """Arms on one lineage, against an adapter for each arrival and one of everything where these arms were run."""
    alone = [diagonal(o, arrivals, metric) for arm in ALONE for o in of_arm(outcomes, arm, setting)]
    joint = [average(by_arrival(o, TOGETHER, arrivals, metric)) for o in of_arm(outcomes, JOINT, setting)]
    rows: list[list[Value]] = []
    for arm in (arm for arm in arms if arm not in (JOINT, FEW, *ALONE)):
        found = []
        for number, outcome in enumerate(of_arm(outcomes, arm, setting)):
            square = [by_arrival(outcome, a.name, arrivals, metric) for a in arrivals]
            before, dedicated = _before(outcome, arrivals, metric), alone[number] if alone else None
            found.append(measured(square, before=before, dedicated=dedicated))
        rows.append([arm, *yardstick_row(found, joint or [None] * len(found))])
    return Table(
        title, YARDSTICKS, rows,
        "In points, plasticity as a share of an own adapter's. Behind joint: of all that arrived, together.",
    )  # fmt: skip


def cost_table(title: str, arms: Sequence[str], outcomes: Outcomes, setting: str) -> Table:
    """What each arm costs: rounds of the whole run, bytes of a round and center, and seconds."""
    rows: list[list[Value]] = []
    for arm in arms:
        own = [outcome.costs for outcome in of_arm(outcomes, arm, setting)]
        steps = [cost for costs in own for name, cost in costs.items() if name != WHOLE]
        rounds = fmean(cost["rounds"] for cost in steps) * len(steps) / len(own) if steps else None
        row: list[Value] = [arm, None if rounds is None else f"{rounds:.0f}"]
        for name in ("kB up", "kB down"):
            values = [cost[name] for cost in steps if cost[name] is not None]
            row.append(f"{fmean(values):.0f}" if values else None)
        rows.append([*row, f"{fmean(costs[WHOLE]['seconds'] for costs in own):.0f}" if own else None])
    return Table(title, ["arm", "rounds", "kB up", "kB down", "seconds"], rows)
