"""study=continual_vlm: text-prompted detection learned center by center and task by task, federated.

The arms of the continual vision-language study: specialized, joint, joint k-shot, sequential, rehearsal, and the model
before any training (zero-shot). Tables have the paper's layout, its own numbers beside ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from common.config.run import Run
from simulations.studies.continual import published
from simulations.studies.continual.arms import FEW, JOINT, SPECIALIZED, TOGETHER, Arrival, by_center, by_task
from simulations.studies.continual.costs import cost_table
from simulations.studies.continual.matrices import (
    Outcomes,
    Row,
    cells,
    center_row,
    of_arm,
    start_row,
    task_row,
)
from simulations.studies.continual.running import SETTINGS, Outcome, Piece, run_pieces
from simulations.studies.continual.yardsticks import Field, centers_table, five_table, shares_table, yardstick_table
from simulations.studies.page import Page, Table, Value

METRIC, ZERO_SHOT = "ap", "zero-shot"


def run(run: Run, overrides: Sequence[str], say: Callable[[str], None]) -> Page:
    """Run or continue the study."""
    study = run.study
    pieces = [Piece(setting, arm, seed) for setting in SETTINGS for arm in study.arms for seed in study.seeds]
    outcomes = run_pieces(pieces, run, overrides=overrides, folder=Path(run.out) / run.name, say=say)
    centers, tasks = by_center(study), by_task(study)
    everywhere = _centers(outcomes, centers)
    by_centers, by_tasks = (Field(outcomes, s, a, METRIC) for s, a in (("centers", centers), ("tasks", tasks)))
    return Page(
        title="Text-prompted detection, center by center and task by task",
        lead=(
            f"COCO's AP in percent of {'slices' if run.steps['learn'].task.slices else 'volumes'}, from scores in bins "
            f"that centers add up. Ours: phantom cohort (scale {run.data.scale}), seeds {study.seeds}, "
            f"{study.rounds} rounds a step; the frozen model is {run.backbone.kind}. The paper's: GLIP on photographs "
            "and slices. Numbers of different data and models; what can be compared is the order of the rows."
        ),
        tables=[
            _last("Centers arrive one by one: the last model", study.arms, outcomes, "centers", centers, everywhere),
            _paper("The paper's, domain by domain", published.DOMAINS, published.BY_CENTER),
            *_along(study.arms, outcomes, "centers", centers, everywhere),
            yardstick_table("Centers one by one, as the field measures it", study.arms, by_centers),
            five_table("Centers one by one, by five names", study.arms, by_centers),
            centers_table("Centers one by one: worst and harmed", study.arms, by_centers),
            *shares_table("Centers one by one, on shares of what arrives", study.arms, by_centers, study.shares),
            _last("Tasks arrive one by one: the last model", study.arms, outcomes, "tasks", tasks, []),
            _paper("The paper's, task by task", published.TASKS, published.BY_TASK),
            *_along(study.arms, outcomes, "tasks", tasks, []),
            yardstick_table("Tasks one by one, as the field measures it", study.arms, by_tasks),
            five_table("Tasks one by one, by five names", study.arms, by_tasks),
            *shares_table("Tasks one by one, on shares of what arrives", study.arms, by_tasks, study.shares),
            _paper("The paper's, trained on one task (row) and tested on another", published.TASKS_CROSSED,
                   published.CROSSED),
            *(cost_table(f"What it costs: {setting}", study.arms, outcomes, setting) for setting in SETTINGS),
        ],
        notes=NOTES,
        figures={piece.file: vars(outcome) for piece, outcome in outcomes.items()},
    )  # fmt: skip


NOTES = [
    "Specialized: an adapter of its own for each center or task, scored where it learned; at centers that nothing "
    "trained on the best of them, which is an oracle and no bound.",
    "Zero-shot: the state that the first step begins with. Ours has a head that nobody has trained, so it finds "
    "nothing; the paper's begins from GLIP's.",
    "A task is scored from its own step on, at the centers that outline its structure. The brain is the task that is "
    "far from all others.",
    "Boxes are scored within the view; at most `task.most` of a structure and patient.",
]


def _centers(outcomes: Outcomes, arrivals: Sequence[Arrival]) -> list[str]:
    """Every center that is scored: those that arrive, in order, then those that nothing trains on."""
    arriving = list(dict.fromkeys(center for arrival in arrivals for center in arrival.centers))
    scored = {row["center"] for p, o in outcomes.items() if p.setting == "centers" for row in o.rows} - {"pooled"}
    return [*arriving, *sorted(scored - {*arriving})]


def _row_after(outcome: Outcome, step: str, arrivals: Sequence[Arrival], centers: Sequence[str]) -> Row:
    """Scores after a step: by center, or of each task where no centers are asked for."""
    return center_row(outcome, step, centers, METRIC) if centers else task_row(outcome, step, arrivals, METRIC)


def _final(outcome: Outcome, arm: str, arrivals: Sequence[Arrival], centers: Sequence[str]) -> Row:
    if arm in (JOINT, FEW):
        return _row_after(outcome, TOGETHER, arrivals, centers)
    if arm != SPECIALIZED:
        return _row_after(outcome, arrivals[-1].name, arrivals, centers)
    each = [_row_after(outcome, arrival.name, arrivals, centers) for arrival in arrivals]
    if not centers:
        return [row[place] for place, row in enumerate(each)]
    home = {center: place for place, arrival in enumerate(arrivals) for center in arrival.centers}
    found: Row = []
    for column, center in enumerate(centers):
        known = [row[column] for row in each if row[column] is not None]
        found.append(each[home[center]][column] if center in home else max(known, default=None))  # type: ignore[type-var]
    return found


def _last(
    title: str, arms: Sequence[str], outcomes: Outcomes, setting: str, arrivals: Sequence[Arrival], centers: list[str]
) -> Table:
    names = centers or [str(arrival.structure) for arrival in arrivals]
    rows: list[list[Value]] = []
    first = next((arm for arm in arms if of_arm(outcomes, arm, setting)), None)
    if first is not None:
        untrained = [_before(outcome, first, arrivals, centers) for outcome in of_arm(outcomes, first, setting)]
        rows.append([ZERO_SHOT, *cells(untrained)])
    for arm in arms:
        rows.append([arm, *cells([_final(o, arm, arrivals, centers) for o in of_arm(outcomes, arm, setting)])])
    unseen = [c for c in centers if c not in {c for a in arrivals for c in a.centers}]
    note = f"Never trained on: {', '.join(unseen)}." if unseen else ""
    return Table(title, ["arm", *names, "AVG"], rows, note)


def _paper(title: str, columns: Sequence[str], table: Mapping[str, Sequence[float]]) -> Table:
    return Table(title, ["arm", *columns], [[name, *(f"{value:.1f}" for value in row)] for name, row in table.items()])


def _before(outcome: Outcome, arm: str, arrivals: Sequence[Arrival], centers: list[str]) -> Row:
    """Before any training: at each center, or of each task as its first step begins from the seed."""
    step = TOGETHER if arm in (JOINT, FEW) else arrivals[0].name
    if centers:
        return start_row(outcome, step, centers, METRIC)
    tasks = [step if arm in (JOINT, FEW) else arrival.name for arrival in arrivals]
    return [
        outcome.value_at_start(task=task, metric=f"{METRIC}_{arrival.structure}", center="pooled")
        for task, arrival in zip(tasks, arrivals, strict=True)
    ]


def _along(
    arms: Sequence[str], outcomes: Outcomes, setting: str, arrivals: Sequence[Arrival], centers: list[str]
) -> list[Table]:
    """Of each arm on one lineage the matrix R[step][column]: the paper's figure, transposed."""
    names = centers or [str(arrival.structure) for arrival in arrivals]
    found = []
    for arm in (arm for arm in arms if arm not in (JOINT, FEW, SPECIALIZED)):
        own = of_arm(outcomes, arm, setting)
        rows: list[list[Value]] = [
            [a.name, *cells([_row_after(o, a.name, arrivals, centers) for o in own])] for a in arrivals
        ]
        found.append(Table(f"Step by step, {arm} ({setting})", ["step", *names, "AVG"], rows))
    return found
