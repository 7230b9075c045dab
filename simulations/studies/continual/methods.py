"""study=continual_methods: what keeps a shared adapter from forgetting while centers train it one after another.

Each arm is one run: its steps write one lineage, each at the centers that arrive with it. Dedicated adapters, which
cannot forget, and one trained on everything at once stand beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from common.config.run import Run
from common.tasks import build_task
from simulations.studies.continual.arms import DEDICATED, JOINT, TOGETHER, Arrival, by_center
from simulations.studies.continual.costs import cost_table
from simulations.studies.continual.matrices import (
    Outcomes,
    Row,
    by_arrival,
    cells,
    diagonal,
    of_arm,
)
from simulations.studies.continual.running import Outcome, Piece, run_pieces
from simulations.studies.continual.yardsticks import Field, centers_table, five_table, shares_table, yardstick_table
from simulations.studies.options.continual import LEARN
from simulations.studies.page import Page, Table, Value

SETTING = "centers"


def run(run: Run, overrides: Sequence[str], say: Callable[[str], None]) -> Page:
    """Run or continue the study."""
    study, arrivals = run.study, by_center(run.study)
    pieces = [Piece(SETTING, arm, seed) for arm in study.arms for seed in study.seeds]
    outcomes = run_pieces(pieces, run, overrides=overrides, folder=Path(run.out) / run.name, say=say)
    metric = build_task(run.steps[LEARN].task).primary
    field = Field(outcomes, SETTING, arrivals, metric)
    return Page(
        title="Continual methods on one adapter that centers train one after another",
        lead=(
            f"{metric} in percent, test patients of each center, after each step. Phantom cohort (scale "
            f"{run.data.scale}), seeds {study.seeds}, {study.rounds} rounds a step, "
            f"{len(arrivals)} steps: {', then '.join('+'.join(a.centers) for a in arrivals)}."
        ),
        tables=[
            yardstick_table("Forgetting and what it is traded for", study.arms, field),
            five_table("By five names", study.arms, field),
            centers_table("Centers under the last model", study.arms, field),
            *shares_table("Before, on shares, and on all of what arrives", study.arms, field, study.shares),
            _last(study.arms, outcomes, arrivals, metric),
            *(_along(arm, outcomes, arrivals, metric) for arm in study.arms if arm not in (DEDICATED, JOINT)),
            cost_table("What it costs", study.arms, outcomes, SETTING),
        ],
        notes=[
            "No method's strength was searched: each has its default, or what study.strengths says.",
            f"Rehearsal keeps {study.memory} cases at each earlier center; its weight in a round is by cases.",
            "Dedicated: an adapter of its own for each center, scored there.",
            "InfLoRA's steps share the rows of the LoRA part alike, under rule ffa; the other arms train all of it by "
            "the part's own rule.",
        ],
        figures={piece.file: vars(outcome) for piece, outcome in outcomes.items()},
    )


def _final(outcome: Outcome, arm: str, arrivals: Sequence[Arrival], metric: str) -> Row:
    if arm == DEDICATED:
        return diagonal(outcome, arrivals, metric)
    return by_arrival(outcome, TOGETHER if arm == JOINT else arrivals[-1].name, arrivals, metric)


def _last(arms: Sequence[str], outcomes: Outcomes, arrivals: Sequence[Arrival], metric: str) -> Table:
    rows: list[list[Value]] = [
        [arm, *cells([_final(o, arm, arrivals, metric) for o in of_arm(outcomes, arm, SETTING)])] for arm in arms
    ]
    return Table("The last model at the centers of each step", ["arm", *_names(arrivals), "AVG"], rows)


def _along(arm: str, outcomes: Outcomes, arrivals: Sequence[Arrival], metric: str) -> Table:
    rows: list[list[Value]] = [
        [a.name, *cells([by_arrival(o, a.name, arrivals, metric) for o in of_arm(outcomes, arm, SETTING)])]
        for a in arrivals
    ]
    return Table(f"Step by step, {arm}", ["step", *_names(arrivals), "AVG"], rows)


def _names(arrivals: Sequence[Arrival]) -> list[str]:
    return ["+".join(arrival.centers) for arrival in arrivals]
