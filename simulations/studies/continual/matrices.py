"""Matrices: the scores R[step][task] of an arm, read off what its run left, and as cells of a study's tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev

from simulations.studies.continual.arms import TOGETHER, Arrival
from simulations.studies.continual.running import Outcome, Piece
from simulations.studies.page import Value

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


def before(outcome: Outcome, arrivals: Sequence[Arrival], metric: str) -> Row:
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
    return [cell([scale * v for v in column if v is not None]) for column in each]


def cell(values: Sequence[float], form: str = "%.1f") -> Value:
    """The mean, with the standard deviation where there are several; None without any."""
    if not values:
        return None
    return form % fmean(values) + (f" ± {form % stdev(values)}" if len(values) > 1 else "")
