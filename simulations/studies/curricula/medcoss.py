"""study=medcoss: MedCoSS' stages and then two tasks, beside its paper's baselines and ablation, each a federation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from common.config.run import Run
from common.metrics import Estimate
from simulations.studies.curricula.arms import Arms, Found, run_arms
from simulations.studies.curricula.tables import INTERVALS, against, cost
from simulations.studies.page import Page, Table, Value

METRIC = {"tumour_ct": "dsc_agg", "hpv": "auroc"}
SHOWN = {"tumour_ct": "tumor, DSCagg", "hpv": "HPV, AUROC"}
FULL = "medcoss"  # the arm that the others are subtracted from
# arXiv 2311.17597, Table 2: accuracy on RICORD, Dice on LiTS (percent), its tasks on CT (FACTS D5).
PAPER = {
    "scratch": (73.02, 60.77), "joint": (78.97, 69.60), "ewc": (75.79, 64.59), "medcoss": (83.33, 72.01),
    "single": (80.56, 71.98),
}  # fmt: skip
ORDERINGS = (  # said, the paper's difference, arm, arm, task
    ("(a) MedCoSS over joint", "+2.41 Dice (LiTS)", "medcoss", "joint", "tumour_ct"),
    ("(a) MedCoSS over joint", "+4.36 ACC (RICORD)", "medcoss", "joint", "hpv"),
    ("(b) choice by k-means", "+0.22 Dice (mean)", "unmixed", "random", "tumour_ct"),
    ("(b) mixing", "+0.31 Dice (mean)", "medcoss", "unmixed", "tumour_ct"),
    ("(f) one modality at home over joint", "+2.38 Dice (LiTS)", "single", "joint", "tumour_ct"),
    ("stages over none", "+11.24 Dice (LiTS)", "medcoss", "scratch", "tumour_ct"),
)


def run(run: Run, overrides: Sequence[str], say: Callable[[str], None]) -> Page:
    """Run or continue the study."""
    arms = run_arms(run, overrides, say)
    say("resampling patients")
    tables = [
        _scores(arms),
        against(arms, FULL, [(task, METRIC[task], said) for task, said in SHOWN.items()]),
        _orderings(arms),
        _retained(arms),
        cost(arms, is_stage=lambda step: step.startswith("stage_")),
    ]
    return Page(
        title="MedCoSS: continual self-supervised stages, federated",
        lead=(
            f"Synthetic phantom cohort (scale {run.data.scale:g}), seeds {run.study.seeds}, folds {run.study.folds}: "
            f"{run.study.stage_rounds} rounds of each stage, {run.study.task_rounds} of each task. Every arm is a "
            "federation of its own over the same centers, splits and seeds."
        ),
        tables=[table for table in tables if table.rows],
        notes=NOTES,
    )


NOTES = [
    INTERVALS,
    "The paper's figures are of other data, tasks and sizes (percent; a ViT-B pre-trained on hundreds of thousands of "
    "images): orderings can be compared, numbers cannot. Its joint row is the one with a decoder for each modality.",
    "No option of any arm was searched; every stage and every task has one learning rate for all arms.",
    "Not here: ER (rehearsal by restoring again, which needs the earlier stages' decoders), PackNet, CaSSLe; MR, which "
    "the phantom does not render.",
]


def _scores(arms: Arms) -> Table:
    rows: list[list[Value]] = []
    for name, arm in arms.chosen.items():
        paper = PAPER.get(name, (None, None))
        ours = [arms.score(name, task, metric) for task, metric in METRIC.items()]
        rows.append([arm.said, *(one.text() for one in ours), ours[0].n, *(_percent(p) for p in reversed(paper))])
    columns = ["arm", *(f"{said} [95 %]" for said in SHOWN.values()), "patients", "paper, LiTS", "paper, RICORD"]
    return Table("After the stages: two tasks, fine-tuned", columns, rows)


def _orderings(arms: Arms) -> Table:
    rows: list[list[Value]] = [
        [said, paper, SHOWN[task], _told(found), "yes" if (found.low or 0) > 0 else "not shown"]
        for said, paper, a, b, task in ORDERINGS
        if {a, b} <= arms.chosen.keys()
        for found in [arms.difference(a, b, task, METRIC[task])]
    ]
    note = "Shown: the interval lies above zero."
    return Table("The paper's orderings", ["ordering", "paper", "here", "ours [95 %]", "shown"], rows, note)


def _retained(arms: Arms) -> Table:
    rows: list[list[Value]] = []
    for name, arm in arms.chosen.items():
        stages = next(iter(arms.found[name].values())).retained
        for stage, later in stages.items():
            last = list(later)[-1]
            if last != stage:
                own, end = (arms.mean(name, _of(stage, after)) for after in (stage, last))
                lost = None if own is None or end is None else round(end - own, 3)
                rows.append([arm.said, stage.removeprefix("stage_"), last.removeprefix("stage_"), own, end, lost])
    columns = ["arm", "stage", "last stage", "restored after its own", "after the last", "change"]
    note = (
        "How much of what was hidden is restored in test patients by the stage's own decoder, on the encoder as each "
        "stage left it: of reports the share of hidden words, of images 1 less the error, 0 where each patch's mean "
        "would do as well."
    )
    return Table("What the encoder still knows of earlier stages", columns, rows, note)


def _of(stage: str, after: str) -> Callable[[Found], float | None]:
    return lambda found: found.retained[stage][after]


def _percent(value: float | None) -> str | None:
    return None if value is None else f"{value:.2f}"


def _told(found: Estimate) -> Value:
    return found.text(signed=True)
