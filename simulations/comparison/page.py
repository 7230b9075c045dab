"""python -m simulations compare: run every arm, then put scores, paired differences and pictures into one report."""

from __future__ import annotations

from collections.abc import Sequence

from common.exact.search import strongest_first
from common.metrics import LOWER_IS_BETTER, written
from common.metrics.names import metric_name
from common.runtime.pulse import under_way
from common.store.ledger import Ledger
from server.report.report import Comparison, bad_news_of, write_report
from server.report.results import Results, merge_results, results, write_results
from server.run.folder import RunFolder
from simulations.comparison.arms import run_arms
from simulations.comparison.beside import beside
from simulations.comparison.comparing import Comparing, prepare
from simulations.comparison.names import BLURS, EXACT, EXACT_RANDOM, FEDERATED, LEFT_OUT, PATIENTS, UNET
from simulations.comparison.overlays import overlays_of
from simulations.comparison.paired import (
    SMALLEST,
    arm_rows,
    comparisons_of,
    harmed_centers,
    shares_of_centralized,
    subgroup_rows,
)
from simulations.comparison.recorded.exact_arm import has_exact_form
from simulations.comparison.recorded.exact_voxels_arm import BLURRED, RIDGES, has_exact_head
from simulations.comparison.training import costs, of_cell, training_rows
from simulations.comparison.tuning import inequalities, undecided
from simulations.virtual.own_data import settled
from simulations.virtual.planning import check_cases

RIDGES_TRIED = strongest_first([RIDGES.penalty, *RIDGES.penalties])
EXACT_NOTE = (
    f"{EXACT}, prognosis: a Cox model stratified by center, linear in the frozen CT features and the record, "
    "fitted exactly from sums (federation=newton finds the same fit); validation cases choose its penalty."
)
HEAD_NOTE = (
    f"{EXACT}, segmentation: a linear model of every voxel on raw values and the frozen model's finest levels, fitted "
    f"exactly from sums; validation cases choose its ridge among {', '.join(f'{p:g}' for p in RIDGES_TRIED)}, training "
    "cases its thresholds."
)
BESIDE_TRAINED = {  # arm -> what its row says
    LEFT_OUT: "centralized without a center, which is tested, once for each center",
    UNET: (
        "a residual U-Net of 0.73 M weights (MONAI), from random weights, in the place of frozen model and adapter, "
        "federated, centralized and at each center, with the step's own samples, rounds and rate"
    ),
}
BESIDE_HEAD = {  # arm -> what its row says
    BLURS: f"the same exact fit on raw values and blurs of {', '.join(f'{s:g}' for s in BLURRED.blurs)} voxels",
    EXACT_RANDOM: "the same exact fit on the frozen model at random weights",
}


def compare(overrides: Sequence[str], *, say=print) -> tuple[RunFolder, list[Comparison]]:
    """Run or continue a comparison; its folder with results and report, and the differences."""
    comparing = prepare(settled(overrides, say=say))
    check_cases(comparing.run, say=say)
    run_arms(comparing, say=say)
    say("resampling patients")
    under_way("resampling patients")
    found = comparisons_of(comparing) + harmed_centers(comparing)
    folder = RunFolder(comparing.folder)
    merged = _results(comparing, found)
    events = [Ledger(comparing.arm_folder(FEDERATED, cell).ledger).events() for cell in comparing.cells]
    patients = [row for row in merged["scores"] if row["arm"] == PATIENTS]
    merged["bad_news"] = bad_news_of({FEDERATED: events}, comparisons=found, patients=patients)
    write_results(folder.results, merged)
    under_way("drawing pictures and writing the report")
    others = beside(comparing.run.compare)
    arms = {arm: merged | {"scores": [r for r in merged["scores"] if r["arm"] == arm]} for arm in others}
    write_report(
        folder.report,
        {FEDERATED: events, **arms},
        overlays=overlays_of(comparing.run, comparing.arm_folder(FEDERATED, comparing.cells[0])),
        comparisons=found,
        patients=patients,
        subgroups=merged["subgroups"],
        notes=notes_of(comparing, found),
        command=f"python -m simulations compare {' '.join(overrides)}",
    )
    return folder, found


def _results(comparing: Comparing, found: list[Comparison]) -> Results:
    parts = []
    for cell in comparing.cells:
        part = results(Ledger(comparing.arm_folder(FEDERATED, cell).ledger).events())
        part["scores"] = [{**row, "fold": cell.fold, "seed": cell.seed} for row in part["scores"]]
        parts.append(part)
    merged = merge_results(parts, name=comparing.folder.name)
    for arm in (FEDERATED, *beside(comparing.run.compare)):
        label = PATIENTS if arm == FEDERATED else arm
        merged["scores"] += [{**row, "arm": label} for row in arm_rows(comparing, arm)]
    merged["training"] = training_rows(comparing)
    merged["subgroups"] = [
        row for arm in (FEDERATED, *beside(comparing.run.compare)) for row in subgroup_rows(comparing, arm)
    ]
    merged["comparisons"] = [comparison.row() for comparison in found]
    merged["tuning"] = {
        "rates": list(comparing.run.compare.learning_rates),
        "unequal": inequalities(comparing.run),
        "undecided": not_told_apart(comparing),
    }
    return merged


def notes_of(comparing: Comparing, found: list[Comparison]) -> list[str]:
    """What a reader must know to weigh the figures."""
    harmed = [f"{c.task}, {c.a}" for c in found if c.note == "harmed"]
    return [
        f"{len(comparing.run.compare.folds)} fold(s), seeds {comparing.run.compare.seeds}; intervals: 95 %, percentile "
        f"bootstrap over test patients within centers ({comparing.run.compare.draws} draws, a quarter for single "
        "centers); they hold for these trained models and do not cover the choice of training patients.",
        "Centralized and local baselines use the same parts, start, samples and passes, the same annealing, their own "
        "validation cases and a persistent optimiser.",
        "Optimizer steps in a row (a federation's: over its rounds, the most of any center) and cases seen, of the "
        "first fold and seed: "
        f"{'; '.join(costs(of_cell(comparing, comparing.cells[0])))}.",
        _tuning_note(comparing),
        *([f"Tuning is not equal. {' '.join(unequal)}"] if (unequal := inequalities(comparing.run)) else []),
        *_exact_notes(comparing),
        f"Federated keeps: {'; '.join(shares_of_centralized(comparing)) or 'nothing to compare'}. Centers of fewer "
        f"than {SMALLEST} test patients are not looked at alone. Aims where centers are large enough: 99 %, 97 % at "
        "the worst center, no center harmed.",
        f"Centers harmed (whole interval against local-only below zero): {', '.join(harmed) or 'none'}.",
    ]


def _exact_notes(comparing: Comparing) -> list[str]:
    steps, shown = comparing.run.steps.values(), beside(comparing.run.compare)
    segmented = [step for step in steps if step.task.kind == "segmentation"]
    return [
        *([EXACT_NOTE] if any(map(has_exact_form, steps)) else []),
        *([HEAD_NOTE] if any(map(has_exact_head, segmented)) else []),
        *(f"{arm}: {said}." for arm, said in BESIDE_HEAD.items() if arm in shown and segmented),
        *(f"{arm}: {said}." for arm, said in BESIDE_TRAINED.items() if arm in shown),
    ]


def _tuning_note(comparing: Comparing) -> str:
    compare = comparing.run.compare
    if not comparing.tunes:
        return "No arm's learning rates were searched: every arm uses the step's own."
    factors = ", ".join(f"{factor:g}" for factor in compare.learning_rates)
    return (
        f"Every arm, each center alone included, tried each step's learning rate times {factors} for "
        f"{compare.tuning_share:.0%} of its rounds and kept what its own validation cases preferred, once per fold. "
        + _undecided_note(comparing)
    )


def _undecided_note(comparing: Comparing) -> str:
    unclear = not_told_apart(comparing)
    if not unclear:
        return "The trials told the rates apart."
    return (
        f"No rate was better than the middle one by {comparing.run.compare.tuning_margin:g} in the trials of "
        f"{'; '.join(unclear)}: they could not tell rates apart, and the middle one was kept."
    )


def not_told_apart(comparing: Comparing) -> list[str]:
    """Trials that could not tell learning rates apart: ``fold 0, centralized: tumour_ct``."""
    found = []
    for fold in sorted({cell.fold for cell in comparing.cells}):
        for path in sorted((comparing.folder / "tuning" / f"fold{fold}").glob("*.json")):
            if steps := undecided(path):
                found.append(f"fold {fold}, {path.stem}: {', '.join(steps)}")
    return found


def comparison_table(found: Sequence[Comparison]):
    """The differences as a rich table."""
    from rich.table import Table

    table = Table(title="Paired differences, 95 % intervals over patients")
    for name, justify in (("Task", "left"), ("Metric", "left"), ("A", "left"), ("B", "left"), ("A - B", "right"),
                          ("Interval", "right"), ("n", "right"), ("", "left")):  # fmt: skip
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for c in found:
        value = "—" if c.difference.value is None else written(c.difference.value, signed=True)
        interval = c.difference.interval_text(signed=True) or "—"
        metric = metric_name(c.metric) + (", lower is better" if c.metric in LOWER_IS_BETTER else "")
        table.add_row(c.task, metric, c.a, c.b, value, interval, str(c.difference.n), c.note)
    return table
