"""What trained models are measured against: exact Cox fits to features and record, and the generator's own hazard."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from client.center.center import Center
from client.data.case import Case
from common.config.run import Run
from common.data.batch import CT, EHR
from common.data.records import encode_records, record_layout
from common.exact.columns import Layout, LinearModel, Rows, plain_rows
from simulations.comparison.recorded.exact_arm import fit_chosen
from simulations.studies.phantom_prognosis.cells import MODALITIES, NEWTON, RECORDS
from simulations.studies.phantom_prognosis.cohort import Cohort, Risks, part_at, with_outcome
from simulations.studies.phantom_prognosis.training import table_of
from simulations.virtual.features import FeatureTable


def newton_risks(run: Run, folder: Path, centers: Sequence[Center], cohort: Cohort) -> Risks:
    """Federated Newton on the same frozen features, and on the record itself."""
    table, study = table_of(run, folder, False), run.study
    cases = {case.patient: case for center in centers for case in center.cases if with_outcome(case)}
    views = {(name, NEWTON): _plain_view(table, name) for name in study.inputs}
    views["text", RECORDS] = lambda patients: _record_view([cases[p] for p in patients])
    risks: Risks = {(name, "cox", arm): np.full((1, len(cohort.patients)), np.nan) for name, arm in views}
    for (name, arm), view in views.items():
        layout, values, flags = view(cohort.patients)
        rows = Rows(values, flags, np.stack([cohort.time, cohort.event], axis=1))
        for fold in range(study.folds):
            model = _fitted(run, layout, rows, cohort, centers, fold)
            tested = np.flatnonzero(cohort.fold == fold)
            risks[name, "cox", arm][0, tested] = model.output(rows.take(tested))[:, 0]
    return risks


def _plain_view(table: FeatureTable, name: str) -> Callable[[list[str]], tuple[Layout, np.ndarray, np.ndarray]]:
    sources = [{CT: "image", EHR: "text"}[m] for m in MODALITIES[name]]

    def view(patients: list[str]) -> tuple[Layout, np.ndarray, np.ndarray]:
        rows = [table.rows[p] for p in patients]
        values = torch.cat([table.pooled[s][rows] for s in sources], dim=1).double().numpy()
        plain = plain_rows(values, np.zeros((len(values), 1)))
        return Layout(tuple(f"feature {i}" for i in range(values.shape[1]))), plain.values, plain.flags

    return view


def _record_view(cases: Sequence[Case]) -> tuple[Layout, np.ndarray, np.ndarray]:
    layout = record_layout()
    return layout, *encode_records([case.record for case in cases], layout)


def _fitted(run: Run, layout: Layout, rows: Rows, cohort: Cohort, centers: Sequence[Center], fold: int) -> LinearModel:
    """Fitted on the training cases, center by center; the penalty by the validation cases' partial likelihood."""
    parts = {name: _by_center(run, cohort, centers, fold, name) for name in ("train", "validation")}
    train = [rows.take(chosen) for chosen in parts["train"] if len(chosen)]
    held_out = [rows.take(chosen) for chosen in parts["validation"] if len(chosen)]
    return fit_chosen(layout, train, held_out, run.study.penalties)


def _by_center(run: Run, cohort: Cohort, centers: Sequence[Center], fold: int, name: str) -> list[np.ndarray]:
    row = {patient: i for i, patient in enumerate(cohort.patients)}
    return [np.array([row[case.patient] for case in part_at(run, center, fold, name)], int) for center in centers]


def true_hazard(root: Path, cohort: Cohort) -> dict[str, np.ndarray]:
    """The generator's own log hazard and its components: what no model may see, and none can beat by much."""
    truth = pd.read_csv(root / "truth.csv").set_index("PatientID").loc[cohort.patients]
    return {"true hazard": truth["log_hazard"], "its image part": truth["image"], "its record part": truth["record"]}
