"""study=medseqft: four segmentation tasks in a row, and two more learned from where they ended, beside baselines."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence

from common.config.run import Run
from simulations.studies.curricula.arms import Arms, run_arms
from simulations.studies.curricula.tables import INTERVALS, against, cost
from simulations.studies.options.curricula import SEQUENCE, STRUCTURES, UNSEEN
from simulations.studies.page import Page, Table, Value

FULL = "medseqft"
PAPER = (
    "The paper's abstract (arXiv 2509.06096): +3.0 % mean Dice over full fine-tuning on ten tasks; tables unobtainable."
)


def run(run: Run, overrides: Sequence[str], say: Callable[[str], None]) -> Page:
    """Run or continue the study."""
    arms = run_arms(run, overrides, say)
    say("resampling patients")
    tables = [
        _scores(arms, SEQUENCE, "The tasks of the sequence"),
        _scores(arms, UNSEEN, "Two tasks that no sequence had, learned from where it ended"),
        against(arms, FULL, [(task, f"dsc_agg_{name}", name) for task, name in STRUCTURES.items()]),
        cost(arms, is_stage=lambda step: step == "original"),
    ]
    return Page(
        title="MedSeqFT: tasks in a row that change the frozen model, federated",
        lead=(
            f"Synthetic phantom cohort (scale {run.data.scale:g}), seeds {run.study.seeds}, folds {run.study.folds}; "
            f"aggregated Dice of each structure. {run.study.task_rounds} rounds of each task, {run.study.stage_rounds} "
            "of masked modelling and of each refinement; every arm is a federation of its own over the same splits."
        ),
        tables=[table for table in tables if table.rows],
        notes=[
            PAPER,
            INTERVALS,
            "No option of any arm was searched; every task has one learning rate and as many rounds in every arm. Who "
            "refines takes more rounds for it, and who learns all at once sees each case in fewer.",
            "sts7's tumor is no task here: it is on other data than the phantom's structures.",
        ],
    )


def _scores(arms: Arms, tasks: Mapping[str, str], title: str) -> Table:
    rows: list[list[Value]] = []
    for name, arm in arms.chosen.items():
        ours = [arms.score(name, task, f"dsc_agg_{structure}") for task, structure in tasks.items()]
        known = [one.value for one in ours if one.value is not None]
        mean = statistics.mean(known) if len(known) == len(ours) else None
        rows.append([arm.said, *(one.text() for one in ours), mean])
    return Table(title, ["arm", *(f"{structure} [95 %]" for structure in tasks.values()), "mean"], rows)
