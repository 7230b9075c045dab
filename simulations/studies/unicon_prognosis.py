"""study=unicon_prognosis: UNICON's table of C-indices, {text, image, both} x {PMA, PMA + WMA} x {MTLR, DeepHit}."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from common.config.run import Run
from simulations.comparison.comparing import Comparing
from simulations.comparison.names import CENTRALIZED, FEDERATED
from simulations.studies.cells import (
    arms_left_out,
    comparable_pairs,
    data_named,
    difference,
    plain_score,
    prepared,
    repeats,
    run_cells,
    score,
)
from simulations.studies.options.unicon_prognosis import INPUTS, LOSSES, WITHIN
from simulations.studies.page import Page, Table, Value

# arXiv 2508.14024, its prognosis table: HECKTOR, 488 patients, 5 folds (FACTS B4).
PAPER = {
    "text_pma_mtlr": 0.668, "text_pma_deephit": 0.686, "text_wma_mtlr": 0.652, "text_wma_deephit": 0.683,
    "image_pma_mtlr": 0.546, "image_pma_deephit": 0.566, "image_wma_mtlr": 0.603, "image_wma_deephit": 0.626,
    "both_pma_mtlr": 0.658, "both_pma_deephit": 0.698, "both_wma_mtlr": 0.670, "both_wma_deephit": 0.721,
}  # fmt: skip
BASELINES = {"mtlr": 0.634, "deephit": 0.661}  # SurvRNC's task models
METRIC = "c_index"


def run(run: Run, overrides: Sequence[str], say: Callable[[str], None]) -> Page:
    """Run or continue the study and lay its table out as the paper's."""
    comparing = prepared(run, overrides)
    run_cells(comparing, say)
    say("resampling patients")
    return Page(
        title="UNICON, prognosis",
        lead=f"Relapse-free survival, C-index over pairs within centers. Ours: {data_named(run)}, {repeats(run)}. "
        "Paper: HECKTOR, 488 patients, 5 folds.",
        tables=[_table(comparing, loss) for loss in LOSSES] + [_differences(comparing)],
        notes=_notes(comparing),
    )


def _table(comparing: Comparing, loss: str) -> Table:
    others = [arm for arm in comparing.run.study.arms if arm != FEDERATED]
    rows: list[list[Value]] = [["baseline (SurvRNC)", "no", "no", BASELINES[loss], None, *[None for _ in others]]]
    for given, within in ((i, w) for i in INPUTS for w in WITHIN):
        name = f"{given}_{within}_{loss}"
        step = comparing.run.steps[name]
        ours = score(comparing, FEDERATED, step, METRIC)
        row: list[Value] = [INPUTS[given], "yes", WITHIN[within], PAPER[name], ours.text()]
        rows.append([*row, *(plain_score(comparing, arm, step, METRIC) for arm in others)])
    columns = ["input", "PMA", "WMA", "paper", "ours, federated [95 %]", *[f"ours, {arm}" for arm in others]]
    return Table(f"C-index, {LOSSES[loss]}", columns, rows)


def _differences(comparing: Comparing) -> Table:
    """What the paper reads off its table, as paired differences on the same patients."""
    steps = comparing.run.steps
    rows: list[list[Value]] = []
    for loss, said in LOSSES.items():
        pairs = {f"WMA added, {INPUTS[i]}": (f"{i}_wma_{loss}", f"{i}_pma_{loss}") for i in INPUTS}
        pairs["image added to text, PMA"] = (f"both_pma_{loss}", f"text_pma_{loss}")
        pairs["image added to text, PMA + WMA"] = (f"both_wma_{loss}", f"text_wma_{loss}")
        for what, (a, b) in pairs.items():
            found = difference(comparing, (FEDERATED, steps[a], ""), (FEDERATED, steps[b], ""), METRIC)
            rows.append([said, what, round(PAPER[a] - PAPER[b], 3), found.text(signed=True), found.n])
        for arm in (arm for arm in comparing.run.study.arms if arm != FEDERATED):
            step = steps[f"both_wma_{loss}"]
            found = difference(comparing, (FEDERATED, step, ""), (arm, step, ""), METRIC)
            rows.append([said, f"federated − {arm}, image + text, PMA + WMA", None, found.text(signed=True), found.n])
    columns = ["head", "difference in C-index", "paper", "ours [95 %]", "patients"]
    return Table("What the table says, paired over patients", columns, rows)


def _notes(comparing: Comparing) -> list[str]:
    run = comparing.run
    fewest = min(comparable_pairs(comparing, step) for step in run.steps.values())
    return [
        f"Each C-index is of {fewest} or more comparable pairs of patients (within a center and fold, the earlier time "
        "a relapse): with few of them it moves in large steps and its interval says little.",
        "Intervals: percentile bootstrap over test patients within centers (small ones together), "
        f"{run.compare.draws} draws; they do not cover the choice of training patients. An interval that holds 0 shows "
        "nothing.",
        "No hyper-parameter was searched for any arm. Rounds are kept by validation loss: a few comparable pairs make "
        "the validation C-index of one center a coin toss. The paper keeps the best validation C-index.",
        "Differences from the paper: its reports were written by GPT-4, ours by a template on site; its patches are "
        "adapted per task, here the frozen ones are kept at the default size (curriculum=unicon adapts them); rank 8, "
        "alpha 16 and the widths are ours, the paper does not state them.",
        f"{CENTRALIZED.capitalize()} training sees all patients in one place with a persistent optimiser and cosine "
        "annealing; the random backbone is the same architecture frozen at random weights.",
        *arms_left_out(run),
    ]
