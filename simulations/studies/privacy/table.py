"""Heads on a table of several centers: hazard models fitted on noised sums, by epsilon, over repeated folds.

The noise is the product's (`client.privacy.noised.sums`), from a known seed for each fold: a simulation, which protects
nobody.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch

from client.data.hecktor.mapping import load_mapping
from client.data.hecktor.tables import read_table
from client.privacy.streams import Stream, key_of, known_secret
from common.config.run import Run
from common.data.records import MODEL_VARIABLES, record_layout
from common.errors import DataError
from common.exact.columns import Layout, LinearModel, Rows, Scaling
from common.exact.objectives import Hazard
from common.exact.ranges import ranges_of, shortened, within_range
from common.privacy.accounting import noise_for
from common.privacy.plan import SUMS, Plan
from common.tasks.prognosis import discretise
from simulations.studies.page import Page, Table
from simulations.studies.privacy.fit import fitted
from simulations.studies.privacy.rows import FREE, level_name
from simulations.studies.survival_table import BOOTSTRAP_SEED, cohort_of, outcome_cases
from simulations.survival.arms import Arm
from simulations.survival.cohort import Cohort, Learning, Models, Task
from simulations.survival.evaluation import POOLED, center_weights, evaluate, indices

CLIP, SETTLED = 2.0, 30  # of a row; steps of a fit without noise


def table_part(page: Page, run: Run, say: Callable[[str], None]) -> None:
    """Add the table's part to the page."""
    study = run.study
    mapping = load_mapping(study.mapping)
    rows = read_table(Path(study.table), mapping)
    if rows.problems:
        raise DataError(rows.problems)
    cases = outcome_cases(rows, study.outcome)
    if len(cases) < 1 or study.outcome not in mapping.outcomes:
        raise DataError(f"{study.table} tells nobody's '{study.outcome}' (study.outcome).")
    known = [name for name in mapping.variables if name in MODEL_VARIABLES]
    layout = record_layout(list(study.variables) or known, with_flags=True)
    cohort = bounded(cohort_of(cases, layout))
    arms: dict[str, Arm] = {
        level_name(epsilon): partial(noised_fit, run=run, epsilon=epsilon) for epsilon in (FREE, *study.epsilons)
    }
    say(f"table: {sum(cohort.sizes)} patients of {len(cohort.centers)} centers, {len(layout.names)} columns")
    learning = Learning(penalties=[study.penalty])
    pairs = evaluate(cohort, arms, learning, folds=study.folds, repeats=study.repeats, say=say)
    sizes = dict(zip(cohort.centers, cohort.sizes, strict=True))
    weights = center_weights(sizes, draws=max(study.bootstrap, 200), seed=BOOTSTRAP_SEED)
    drawn = {arm: indices(pairs[arm], weights)[POOLED] for arm in arms}
    free, count = drawn[level_name(FREE)], sum(cohort.sizes)
    table = Table(
        f"Noised Newton on records: hazard model, {study.questions} questions",
        ["Privacy", "C-index", "To none"],
        [
            [
                arm,
                own.estimate(n=count).text(),
                "" if own is free else own.minus(free).estimate(n=count).text(signed=True),
            ]
            for arm, own in drawn.items()
        ],
        f"{count} patients of {len(cohort.centers)} centers, {study.folds} folds, {study.repeats} repeats with noise "
        f"of their own; {len(layout.names)} columns in public ranges, rows at most {CLIP:g} long, {study.bins} grid "
        "times; "
        "95 % intervals over patients within centers.",
    )
    page.tables.append(table)
    page.figures["table"] = {arm: own.estimate(n=count).text() for arm, own in drawn.items()}


def bounded(cohort: Cohort) -> Cohort:
    """The cohort's rows in public ranges and shortened, as a step under noised sums sees them."""
    layout, ranges = cohort.layout, ranges_of(cohort.layout.values)
    found = {}
    for center, rows in cohort.rows.items():
        known = torch.from_numpy(layout.known(rows.flags))
        values = within_range(torch.from_numpy(rows.values), ranges, known)
        short, flags = shortened(values, torch.from_numpy(rows.flags), longest=CLIP, with_flags=layout.with_flags)
        found[center] = Rows(short.numpy(), flags.numpy(), rows.target)
    return Cohort(cohort.cases, found, layout)


def noised_fit(task: Task, *, run: Run, epsilon: float) -> Models:
    """One model for all centers, from as many questions as the study has."""
    study, objective = run.study, Hazard(run.study.bins)
    plans = {center: _plan(epsilon, len(rows), study.questions) for center, rows in task.train.items()}
    streams = {c: Stream(key_of(known_secret(run.seed), _fold(task, epsilon, c), "noise")) for c in task.train}
    data = {center: _on_grid(task.layout, rows, study.bins, study.horizon_days) for center, rows in task.train.items()}
    questions = SETTLED if math.isinf(epsilon) else study.questions
    beta = fitted(objective, data, plans, streams, questions=questions, penalty=task.penalty)
    weight, _ = objective.split(beta, len(task.layout.names))
    scaling = Scaling(np.zeros(len(task.layout.values)), np.ones(len(task.layout.values)))
    return dict.fromkeys(task.centers, LinearModel(task.layout, scaling, weight[:1], np.zeros(1)))


def _plan(epsilon: float, patients: int, questions: int) -> Plan:
    """Of a public bound that is the training patients' number in the next ten."""
    cohort = -(-patients // 10) * 10
    delta = 1 / (10 * cohort)
    noise = 0.0 if math.isinf(epsilon) else noise_for(epsilon, delta, rate=1.0, draws=questions, accountant="rdp")
    return Plan(cohort, cohort, 1, CLIP, delta, noise, SUMS)


def _fold(task: Task, epsilon: float, center: str) -> Mapping[str, object]:
    """What keys a fold's noise: equal patients at an equal epsilon get equal noise."""
    rows = task.train[center]
    return {"center": center, "epsilon": epsilon, "rows": float(rows.target.sum()), "count": len(rows)}


def _on_grid(layout: Layout, rows: Rows, bins: int, horizon_days: int) -> tuple[np.ndarray, np.ndarray]:
    """Columns (n, P), and (n, 2): grid index and event, on public cuts of equal width."""
    cuts = torch.linspace(0, horizon_days, bins, dtype=torch.float64)
    index, event = discretise(torch.from_numpy(rows.target[:, 0]), torch.from_numpy(rows.target[:, 1]), cuts)
    x = np.concatenate([rows.values, rows.flags], axis=1) if layout.with_flags else rows.values
    return x, torch.stack([index.double(), event.double()], dim=1).numpy()
