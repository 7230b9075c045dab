"""study=privacy: what epsilon costs, for adapters that train by batches and for heads fitted on noised sums.

Rows of a step differ in their adapter and in the noise alone; data, splits and seeds are the same. Nothing was tuned
for any epsilon: clip, batch and rounds are one choice for all, as they must be fixed before patients are asked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from common.config.run import Run
from common.tasks import build_task
from simulations.studies.aggregation import METRICS, SHOWN
from simulations.studies.page import Page, Table
from simulations.studies.privacy.rows import FREE, level_name, rows_of
from simulations.studies.privacy.table import table_part
from simulations.studies.trials import Result, Scored, Trial, run_trials, score_row, signed

AIM = 0.03  # points that a small adapter may lose at epsilon 8


def run(run: Run, overrides: Sequence[str], say: Callable[[str], None]) -> Page:
    """Run or continue the study."""
    rows = {step: rows_of(run, step) for step in run.steps}
    trials = [trial for of_step in rows.values() for row in of_step.values() for trial in row]
    results = run_trials(trials, run, overrides=overrides, folder=Path(run.out) / run.name, say=say)
    study = run.study
    page = Page(
        title="What privacy costs",
        lead=(
            f"Synthetic phantom cohort (scale {run.data.scale}), seven centers, seeds {study.seeds}; privacy=dp_sgd "
            f"with a public bound of {study.cohort} patients a center, {study.batch} a draw, {study.draws} draws a "
            f"round, clip {study.clip:g}, delta one tenth of one over the bound. One choice of them for every row."
        ),
        tables=[_table(run, step, rows[step], results) for step in run.steps],
        notes=_notes(),
        figures={trial.file: {n: v for n, v in vars(results[trial]).items() if n != "patients"} for trial in trials},
    )
    if study.table and study.mapping:
        table_part(page, run, say)
    else:
        page.notes.append("No table was given (study.table, study.mapping): heads on records were left out.")
    return page


def _table(run: Run, step: str, rows: dict[tuple[str, float], list[Trial]], results: dict[Trial, Result]) -> Table:
    """Adapters by epsilon, each against itself without privacy."""
    spec, draws = run.steps[step], run.study.bootstrap
    metric = METRICS[build_task(spec.task).kind]
    shown: list[list[str | int | float | None]] = []
    for (adapter, epsilon), trials in rows.items():
        own = [results[trial] for trial in trials]
        reference = None if epsilon == FREE else [results[trial] for trial in rows[adapter, FREE]]
        scored = score_row(spec, own, reference, metric=metric, draws=draws)
        value = scored.value if not scored.failed else "no round counted"
        shown.append([adapter, level_name(epsilon), value, *signed(scored.difference), _verdict(epsilon, scored)])
    columns = ["Adapter", "Privacy", SHOWN[metric], "To none", "Interval", f"Loses at most {AIM:g}"]
    patients = len(next(iter(results.values())).patients)
    return Table(f"{step}: {spec.rounds} rounds", columns, shown, f"{patients} test patients; intervals over patients.")


def _verdict(epsilon: float, scored: Scored) -> str:
    value = scored.difference.value
    return "" if epsilon == FREE or value is None else "yes" if value >= -AIM else "no"


def _notes() -> list[str]:
    return [
        "Differences are to the same adapter without privacy over the same test patients; 95 % intervals, percentile "
        "bootstrap over patients within centers. They cover neither the training patients' draw nor, at one seed, the "
        "noise's.",
        "Each epsilon is that of one step at each center. Scores of test patients are computed in this simulation: no "
        "hospital would let them out by this privacy.",
    ]
