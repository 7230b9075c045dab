"""The study's page: C-indices and differences on the same patients, yardsticks, centers, notes."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from common.config.run import Run
from common.metrics import Resampled, bootstrap_concordance, bootstrap_weights
from simulations.comparison.names import CENTRALIZED, FEDERATED, LOCAL, RANDOM, label_of
from simulations.studies.options.prognosis import PhantomPrognosisStudy
from simulations.studies.page import Page, Table
from simulations.studies.phantom_prognosis.cells import ARMS, NEWTON, RECORDS
from simulations.studies.phantom_prognosis.cohort import Cohort, Risks
from simulations.studies.phantom_prognosis.picture import picture_of
from simulations.studies.phantom_prognosis.yardsticks import true_hazard

MARGIN = 0.02  # C-index, DESIGN section 8


class Indices:
    """C-indices under the same resampled patients, drawn within centers."""

    def __init__(self, cohort: Cohort, *, draws: int):
        self.cohort = cohort
        self.weights = bootstrap_weights(cohort.centers.tolist(), draws=draws)

    def index(self, risk: np.ndarray, *, center: str | None = None, across: bool = False) -> Resampled:
        """Of risks (n,) or (seeds, n).

        Args:
            center: one center's patients only.
            across: form pairs across centers too, within a fold; needs every patient's time and risk in one place.
        """
        c = self.cohort
        chosen = np.ones(len(c.time), bool) if center is None else c.centers == center
        labels = c.fold.tolist() if across else c.groups
        groups = [label for label, keep in zip(labels, chosen, strict=True) if keep]
        return bootstrap_concordance(
            c.time[chosen], c.event[chosen], np.atleast_2d(risk)[:, chosen], groups=groups,
            weights=self.weights[:, chosen],
        )  # fmt: skip


def page_of(run: Run, cohort: Cohort, risks: Risks, root: Path) -> Page:
    """Tables, figure and notes; ``root`` holds the generator's truth."""
    study = run.study
    resampled = Indices(cohort, draws=study.draws)
    found = {key: resampled.index(risk) for key, risk in risks.items()}
    ceiling = {name: resampled.index(np.asarray(risk)) for name, risk in true_hazard(root, cohort).items()}
    page = Page("Prognosis on the phantom cohort", _lead(run, cohort))
    page.tables = [
        _scores(study, found),
        _differences(study, found),
        _yardsticks(study, found, ceiling),
        _centers(study, cohort, risks, resampled),
    ]
    page.pictures = [picture_of(found, ceiling)]
    page.notes = _notes(run, risks, resampled)
    page.figures = {"|".join(key): [e.value, e.estimate().interval] for key, e in found.items()}
    page.figures |= {name: [e.value, e.estimate().interval] for name, e in ceiling.items()}
    return page


def _lead(run: Run, cohort: Cohort) -> str:
    study = run.study
    return (
        f"Synthetic data: {len(cohort.time)} phantom patients of {len(set(cohort.centers.tolist()))} centers, "
        f"{int(cohort.event.sum())} relapses (scale {run.data.scale}, seed {run.data.seed}). {study.folds}-fold, seeds "
        f"{study.seeds}; every patient is tested once per seed. C-index (Harrell, HECKTOR's ties) over pairs within a "
        f"center and fold, mean over seeds; 95 % percentile intervals from {study.draws} resamplings of patients "
        "within centers. They hold for these trained models, not for another draw of training patients."
    )


def _scores(study: PhantomPrognosisStudy, found: dict[tuple[str, str, str], Resampled]) -> Table:
    rows: list[list[Any]] = []
    for name, loss in product(study.inputs, study.losses):
        arms = [found.get((name, loss, arm)) for arm in (*ARMS, RANDOM)]
        rows.append([name, loss, *(arm.estimate().text() if arm else None for arm in arms)])
    return Table("C-index", ["input", "loss", *map(label_of, ARMS), "federated, random backbone"], rows)


def _differences(study: PhantomPrognosisStudy, found: dict[tuple[str, str, str], Resampled]) -> Table:
    rows: list[list[Any]] = []
    for name, loss in product(study.inputs, study.losses):
        mine = found[name, loss, FEDERATED]
        others = [found.get((name, loss, arm)) for arm in (CENTRALIZED, LOCAL, RANDOM)]
        others.append(found.get((name, "cox", NEWTON)))
        rows.append([name, loss, *(mine.minus(o).estimate().text(signed=True) if o else None for o in others)])
    note = f"Not inferior to centralized at the margin of {MARGIN} where the whole interval lies above −{MARGIN}."
    columns = ["input", "loss", *(f"− {label_of(a)}" for a in (CENTRALIZED, LOCAL, RANDOM)), "− federated Newton"]
    return Table("Federated minus the others, on the same patients", columns, rows, note)


def _yardsticks(
    study: PhantomPrognosisStudy, found: dict[tuple[str, str, str], Resampled], ceiling: dict[str, Resampled]
) -> Table:
    rows: list[list[Any]] = [[name, "the generator", estimate.estimate().text()] for name, estimate in ceiling.items()]
    rows += [[arm, name, e.estimate().text()] for (name, _, arm), e in found.items() if arm in (NEWTON, RECORDS)]
    note = (
        "Newton: stratified Cox fitted to the last digit as on pooled data; its penalty "
        f"({', '.join(f'{p:g}' for p in study.penalties)}) is chosen by the validation cases."
    )
    return Table("Yardsticks", ["what", "input", "C-index"], rows, note)


def _centers(study: PhantomPrognosisStudy, cohort: Cohort, risks: Risks, resampled: Indices) -> Table:
    """Federated against local-only at each center, for the fullest input and the first loss."""
    name, loss = study.inputs[-1], study.losses[0]
    rows: list[list[Any]] = []
    for center in sorted(set(cohort.centers.tolist())):
        mine, alone = (resampled.index(risks[name, loss, arm], center=center) for arm in (FEDERATED, LOCAL))
        gain = mine.minus(alone)
        harmed = gain.estimate().is_below_zero
        n = int((cohort.centers == center).sum())
        rows.append(
            [
                center,
                n,
                mine.estimate().text(),
                alone.estimate().text(),
                gain.estimate().text(signed=True),
                "harmed" if harmed else "",
            ]
        )
    columns = ["center", "patients", FEDERATED, label_of(LOCAL), "difference", ""]
    return Table(f"Center by center, {name}, {loss}", columns, rows, "Harmed: the whole interval lies below zero.")


def _notes(run: Run, risks: Risks, resampled: Indices) -> list[str]:
    study = run.study
    key = (study.inputs[-1], study.losses[0], FEDERATED)
    across = resampled.index(risks[key], across=True).estimate().text()
    return [
        f"Training: {study.rounds} rounds or passes, batches of {study.batch}, AdamW at {study.learning_rate:g}, no "
        "augmentation; the round or pass is chosen by validation cases (loss; Cox: partial likelihood). Nothing was "
        "searched. Centralized and local keep their optimiser and anneal its rate; the federation does neither.",
        "Encoders are frozen and without LoRA: these are UNICON's post-model adapters, not the within-model ones.",
        f"Over pairs across centers too, {key[0]} {key[1]} federated has {across}: possible only in a "
        "simulation, since it needs every patient's time, event and risk in one place.",
        "The random backbone is the same architecture frozen at random weights, with its text side random as well.",
    ]
