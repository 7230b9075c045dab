"""Survival at several centers from one table: pooled, federated, local and left out, on the same folds.

`study=hn4` is this study on four Quebec hospitals; `study=survival_table data.table=FILE data.mapping=FILE` on any
table of patients with a center column.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from client.data.case import Case
from client.data.hecktor.mapping import TableMapping, load_mapping
from client.data.hecktor.tables import Rows as TableRows
from client.data.hecktor.tables import read_table
from common.config.run import Run
from common.data.records import MODEL_VARIABLES, encode_records, record_layout
from common.errors import ConfigError, DataError, UnknownName
from common.exact.columns import Layout, Rows
from common.metrics import Estimate, Pairs
from server.report.charts import MONTH
from simulations.comparison.names import CENTRALIZED, EXACT, FEDADAM, FEDAVG, LEFT_OUT, LOCAL, label_of
from simulations.studies.forest import forest
from simulations.studies.options.prognosis import SurvivalTableStudy
from simulations.studies.page import Page, Picture, Table
from simulations.studies.risk_pictures import risk_pictures
from simulations.survival.arms import ARMS, fit, pooled_fit
from simulations.survival.cohort import Cohort, Fold, Learning
from simulations.survival.declared import Cells, with_columns
from simulations.survival.evaluation import ALL_PAIRS, POOLED, center_weights, evaluate, indices, task_of
from simulations.survival.options import CoxStudy
from simulations.survival.out_of_fold import out_of_fold

FEDERATIONS = (EXACT, FEDAVG, FEDADAM)
Estimates = Mapping[str, Estimate]  # by center, and pooled
MOST_CENTERS = 20
BOOTSTRAP_SEED = 1005  # apart from the splits' seeds


def run(run: Run, overrides: Sequence[str], say: Callable[[str], None]) -> Page:
    """Every arm on every set of inputs of one table."""
    study: SurvivalTableStudy = run.study
    mapping, rows = _read(run)
    cases = outcome_cases(rows, study.outcome)
    check_cohort(cases, study)
    inputs = study.inputs or {"records": []}
    fixed = _fixed(cases, rows.cells, study)
    title = f"Survival at several centers: {Path(str(run.data.table)).stem}, {study.outcome.upper()}"
    page = Page(title, lead(study, cases, tested=_told(study)), tables=[cohort_table(cases)], notes=list(rows.notes))
    for name, variables in inputs.items():
        declared = {column: study.columns[column] for column in study.columns if not variables or column in variables}
        named = [variable for variable in variables if variable not in declared]
        known = _chosen(named, mapping, may_be_none=bool(declared))
        cohort = cohort_of(cases, record_layout(known, with_flags=study.known_flags))
        cohort = with_columns(cohort, rows.cells, declared, fewest=study.fewest) if declared else cohort
        layout = cohort.layout
        say(f"{name}: {len(layout.names)} columns, {sum(map(len, cases.values()))} patients, {len(cases)} centers")
        add_inputs(page, name, cohort, study, say, fixed=fixed, all_pairs=study.all_pairs)
    return page


# --------------------------------------------------------------------------------------------------------- the data


def _read(run: Run) -> tuple[TableMapping, TableRows]:
    """The table, or everything that is wrong with it."""
    if not run.data.table or not run.data.mapping:
        raise ConfigError(
            "This study reads one table: set data.table=FILE (comma-separated) and data.mapping=FILE (YAML; those in "
            "configs/mapping are examples)."
        )
    mapping = load_mapping(run.data.mapping)
    if mapping.center is None:
        raise DataError(f"Mapping '{mapping.name}' names no center column; add center: COLUMN.")
    if run.study.outcome not in mapping.outcomes:
        raise UnknownName("outcome", run.study.outcome, mapping.outcomes, where=f"mapping '{mapping.name}'")
    wanted = [*run.study.columns, *([run.study.split_column] if run.study.split_column else [])]
    rows = read_table(Path(run.data.table), mapping, columns=wanted)
    if rows.problems:
        raise DataError(rows.problems)
    return mapping, rows


def outcome_cases(rows: TableRows, outcome: str) -> dict[str, list[Case]]:
    """The patients that have the outcome, by center, in the order of their names."""
    found: dict[str, list[Case]] = {}
    for patient, center in sorted(rows.centers.items()):
        known = rows.outcome(patient, outcome)
        if known is not None:
            case = Case(patient, center, {}, None, rows.fields[patient], *known, findings=None, report=None)
            found.setdefault(center, []).append(case)
    return found


def check_cohort(cases: Mapping[str, list[Case]], study: CoxStudy) -> None:
    """Raise DataError or ConfigError for what no model can be learned from."""
    patients = sum(map(len, cases.values()))
    events = sum(case.event or 0 for group in cases.values() for case in group)
    if len(cases) > MOST_CENTERS:
        raise DataError(
            f"The table has {len(cases)} centers, this study takes 1 to {MOST_CENTERS}; is its center column one of "
            "patients? Otherwise join centers."
        )
    if events < 2 or patients < 3:
        raise DataError(
            f"The table has {patients} patients with an outcome and {events} events; a survival model needs at least 3 "
            "patients and 2 events."
        )
    if study.folds < 2 or study.repeats < 1:
        raise ConfigError(f"study.folds is {study.folds} and study.repeats {study.repeats}; use 2 or more, 1 or more.")
    if study.horizon_months < 1:
        raise ConfigError(f"study.horizon_months is {study.horizon_months}; use 1 or more.")


def cohort_of(cases: Mapping[str, list[Case]], layout: Layout) -> Cohort:
    """Cases as numbers."""
    rows = {}
    for center, group in cases.items():
        target = np.array([[case.days, case.event] for case in group], np.float64)
        rows[center] = Rows(*encode_records([case.record for case in group], layout), target)
    return Cohort(dict(cases), rows, layout)


def _fixed(cases: Mapping[str, list[Case]], cells: Cells, study: SurvivalTableStudy) -> dict[str, np.ndarray] | None:
    """Positions of those who test, by center, where a column of the table says so.

    Raises:
        DataError: nobody tests, or nobody trains.
    """
    if not study.split_column:
        return None
    said = cells[study.split_column]
    found = {
        center: np.array([i for i, case in enumerate(group) if said.get(case.patient) == study.test_value], dtype=int)
        for center, group in cases.items()
    }
    test = sum(map(len, found.values()))
    if test in (0, sum(map(len, cases.values()))):
        values = ", ".join(sorted(set(said.values()))[:8])
        raise DataError(
            f"Column '{study.split_column}' says '{study.test_value}' of {test} patients, and some must test and some "
            f"train; it has the values {values}: set study.test_value."
        )
    return found


def _chosen(variables: Sequence[str], mapping: TableMapping, *, may_be_none: bool = False) -> list[str]:
    """The named variables, or all that the mapping has; a treatment counts as chemotherapy (`common.data.records`)."""
    if may_be_none and not variables:
        return []
    wanted = list(variables) or [n for n in mapping.variables if n in (*MODEL_VARIABLES, "treatment")]
    if not wanted:
        raise DataError(
            f"Mapping '{mapping.name}' maps no variable that a model can use; map some of {MODEL_VARIABLES}."
        )
    return sorted({"chemotherapy" if name == "treatment" else name for name in wanted})


# --------------------------------------------------------------------------------------------------------- the page


def _told(study: SurvivalTableStudy) -> str:
    """Who tests, where a column says so; empty for a cross-validation."""
    column = study.split_column
    return f"tested once, where column '{column}' says '{study.test_value}'" if column else ""


def lead(study: CoxStudy, cases: Mapping[str, list[Case]], *, tested: str = "") -> str:
    """What was compared, on whom, how often.

    Args:
        tested: who tests, in words, where no folds are dealt.
    """
    patients = sum(map(len, cases.values()))
    folds = tested or (
        f"{study.folds}-fold cross-validation repeated {study.repeats} times (split seeds 0 to {study.repeats - 1}), "
        "every arm on the same folds"
    )
    same_fold = "" if study.across_folds or tested else " and one test fold"
    return (
        f"{study.about or 'A table given by the user.'} {patients} patients of {len(cases)} centers; ridge Cox models "
        f"stratified by center, {folds}, penalty chosen within the training rows from "
        f"{', '.join(f'{p:g}' for p in study.penalties)}. C-index over pairs of patients of one center"
        f"{same_fold}; 95 % intervals from {study.draws} bootstrap draws of "
        "patients within centers, the models held fixed."
    )


def cohort_table(cases: Mapping[str, list[Case]]) -> Table:
    """Who there is at each center."""
    rows: list[list] = []
    for center, group in cases.items():
        recorded = sorted({name for case in group for name in case.record})
        days = float(np.median([case.days for case in group]))
        rows.append([center, len(group), sum(case.event or 0 for case in group), f"{days:.0f}", ", ".join(recorded)])
    return Table("Patients", ["center", "patients", "events", "median days", "recorded for at least one"], rows)


def add_inputs(
    page: Page,
    name: str,
    cohort: Cohort,
    study: CoxStudy,
    say: Callable[[str], None],
    *,
    fixed: Mapping[str, np.ndarray] | None = None,
    all_pairs: bool = False,
) -> None:
    """One set of inputs: its tables, its pictures and its figures.

    Args:
        fixed: positions of those who test, once; None: cross-validation.
        all_pairs: also score pairs of patients of different centers.
    """
    learning = Learning(list(study.penalties), study.sgd_rounds, study.local_steps, study.local_rate)
    learning.fedadam.learning_rate = study.server_rate
    arms = {name: arm for name, arm in ARMS.items() if len(cohort.centers) > 1 or name != LEFT_OUT}
    folds: list[Fold] = []
    pairs = evaluate(
        cohort, arms, learning, folds=study.folds, repeats=study.repeats, across_folds=study.across_folds, say=say,
        seen=folds.append, fixed=fixed, all_pairs=all_pairs,
    )  # fmt: skip
    sizes = {c: len(p.comparable) for c, p in pairs[EXACT].items() if c != ALL_PAIRS}
    weights = center_weights(sizes, draws=study.draws, seed=BOOTSTRAP_SEED)
    drawn = {arm: indices(pairs[arm], weights) for arm in arms}
    n = {where: sum(sizes.values()) for where in (ALL_PAIRS, POOLED) if where in drawn[EXACT]} | sizes
    index = {arm: {p: drawn[arm][p].estimate(n=n[p]) for p in n} for arm in arms}
    gains = {arm: {p: drawn[arm][p].minus(drawn[LOCAL][p]).estimate(n=n[p]) for p in n} for arm in arms if arm != LOCAL}
    page.tables.append(
        Table(
            f"C-index, {name}",
            ["arm", *n],
            [[label_of(arm), *(index[arm][p].text() for p in n)] for arm in arms],
            note=_pairs_note(pairs[EXACT]),
        )
    )
    page.tables.append(
        Table(
            f"Against local models, {name}",
            ["arm", *n, "harmed"],
            [
                [label_of(arm), *(g[p].text(signed=True) for p in n), _harmed(g, cohort.centers)]
                for arm, g in gains.items()
            ],
            note="C-index minus that of each center's own model on the same patients. A center is harmed where its "
            "whole interval lies below zero.",
        )
    )
    page.tables.append(_kept_of_pooled(name, index, gains, cohort.centers))
    first = [fold for fold in folds if fold.repeat == 0]
    risks = risk_pictures(name, EXACT, out_of_fold(cohort, first, EXACT, horizon=study.horizon_months * MONTH), study)
    page.pictures += [_forest(name, gains[EXACT]), *risks.pictures]
    page.notes += risks.notes
    page.notes.append(
        f"{name}: the federated Newton fit and the stratified fit of the pooled table, on all patients, differ by at "
        f"most {exactness(cohort, learning):.0e} in any coefficient."
    )
    page.figures[name] = {
        "columns": list(cohort.layout.names),
        "c_index": {arm: {p: asdict(e) for p, e in row.items()} for arm, row in index.items()},
        "minus_local": {arm: {p: asdict(e) for p, e in row.items()} for arm, row in gains.items()},
        **risks.figures,
    }


def _kept_of_pooled(
    name: str, index: Mapping[str, Estimates], gains: Mapping[str, Estimates], centers: Sequence[str]
) -> Table:
    """What each federated arm keeps of the pooled fit's C-index: overall, and at the worst center."""
    rows: list[list] = []
    for arm in (arm for arm in FEDERATIONS if arm in index):
        shares = {
            where: own.value / together.value
            for where, own in index[arm].items()
            if own.value is not None and (together := index[CENTRALIZED][where]).value
        }
        whole, _ = shares.pop(POOLED, None), shares.pop(ALL_PAIRS, None)
        worst = min(shares, key=lambda center: shares[center], default=None)
        at_worst = None if worst is None else f"{shares[worst]:.1%} ({worst})"
        rows.append([arm, None if whole is None else f"{whole:.1%}", at_worst, _harmed(gains[arm], centers)])
    return Table(f"Share of the pooled fit's C-index, {name}", ["arm", "overall", "worst center", "harmed"], rows)


def exactness(cohort: Cohort, learning: Learning) -> float:
    """Largest difference of a coefficient between the federated and the pooled fit of every patient."""
    task = task_of(cohort.rows, cohort, learning)
    federated, together = fit(task.train, task.layout, task.penalty), pooled_fit(task.train, task.layout, task.penalty)
    assert federated is not None and together is not None  # `check_cohort` asked for events
    return float(np.abs(federated.weight - together.weight).max())


def _harmed(gains: Estimates, centers: Sequence[str]) -> str:
    harmed = [c for c in centers if gains[c].is_below_zero]
    return ", ".join(harmed) or "none"


def _pairs_note(pairs: Mapping[str, Pairs]) -> str:
    counted = ", ".join(f"{center} {int(p.comparable.sum())}" for center, p in pairs.items())
    return f"Comparable pairs over all repeats: {counted}."


def _forest(name: str, gains: Estimates) -> Picture:
    return Picture(
        f"Federated Newton against local models, {name}",
        "Difference in C-index with its 95 % interval, per center and over all pairs within centers; right of the line "
        "the federation is better.",
        svg=forest(gains, label="difference in C-index"),
    )
