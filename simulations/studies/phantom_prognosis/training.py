"""The models of a cell, trained on a feature table: federated, centralized and at each center alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from client.center.center import Center
from client.training.observation import observe
from common.backbones import backbone_digest, load_backbone
from common.backbones.base import Backbone
from common.config.load import compose_run
from common.config.run import Run
from common.files import write_json
from common.model.adapted import AdaptedModel
from common.protocol.messages import Order
from common.tasks import Observation
from server.run.folder import RunFolder
from simulations.comparison.baselines import baseline_order, train_pooled
from simulations.comparison.names import CENTRALIZED, FEDERATED, LOCAL, RANDOM, arm_of
from simulations.comparison.patients import open_centers
from simulations.studies.phantom_prognosis.cells import Cell, cells, study_step
from simulations.studies.phantom_prognosis.cohort import Cohort, Risks, split_of, with_outcome
from simulations.virtual.features import Encoded, FeatureCenter, FeatureTable, feature_table, federated
from simulations.virtual.federate import worker_count
from simulations.virtual.pool import side_by_side


def train(run: Run, overrides: Sequence[str], folder: Path, say: Callable[[str], None]) -> None:
    """Train every cell that has no records yet."""
    every = list(cells(run.study))
    waiting = [cell for cell in every if not cell.records(folder).exists()]
    say(f"{len(waiting)} of {len(every)} cells to train")

    def finished(number: int, cell: Cell) -> None:
        if number % 25 == 0 or number == len(waiting):
            say(f"  {number}/{len(waiting)}")

    work = partial(train_cell, tuple(overrides), folder)
    side_by_side(work, waiting, workers=worker_count(run.runtime), finished=finished)


def train_cell(overrides: tuple[str, ...], folder: Path, cell: Cell) -> None:
    """Train a cell's arms and keep every test patient's risk under each."""
    run, centers, table, base = _shared(overrides, folder, cell.random)
    run = replace(run, seed=cell.seed, data=replace(run.data, split=split_of(run, cell.fold)))
    step = study_step(run, cell.input, cell.loss)
    torch.set_num_threads(run.runtime.threads)
    start, minimum = AdaptedModel(Encoded(table), step, seed=run.seed).state(), run.data.minimum_cell
    order = replace(baseline_order(run, step, base=base, state=start), backbone=_spec(run, cell.random))

    def served() -> list[FeatureCenter]:
        return [FeatureCenter(c.code, [c], table, of=with_outcome, minimum=minimum) for c in centers]

    order.known = _label_sums(served(), order)
    found = {FEDERATED: _tested(served(), replace(order, state=federated(served(), order).state))}
    if not cell.random:
        everyone = FeatureCenter("ALL", centers, table, of=with_outcome, minimum=minimum)
        found[CENTRALIZED] = _tested(served(), replace(order, state=train_pooled(everyone, order).state))
        found[LOCAL] = {}
        for center in served():
            if center.part(order, "test"):
                state = train_pooled(center, order).state if center.part(order, "train") else start
                found[LOCAL] |= _tested([center], replace(order, state=state))
    write_json(cell.records(folder), found)


def _label_sums(centers: Sequence[FeatureCenter], order: Order) -> dict[str, np.ndarray]:
    from common.tasks import merge_sums

    return merge_sums([center.label_sums(order) for center in centers])


def _tested(centers: Sequence[FeatureCenter], order: Order) -> dict[str, float]:
    """Patient -> risk of every test patient."""
    found: dict[str, float] = {}
    model, task = centers[0].model(order)
    for center in centers:
        cases = center.case_set(order, "test", model)
        observed: list[tuple[Observation, float]] = observe(order, model, task, cases) if len(cases) else []
        found |= {case.patient: float(o["risk"]) for case, (o, _) in zip(cases.cases, observed, strict=True)}
    return found


@lru_cache(maxsize=2)
def _shared(overrides: tuple[str, ...], folder: Path, random: bool) -> tuple[Run, list[Center], FeatureTable, str]:
    """What all cells of a backbone share, once per process."""
    run = compose_run(overrides)
    files = {code: path for code, path in RunFolder(folder).center_files().items() if code != "CHEST"}
    return run, open_centers(files), table_of(run, folder, random), backbone_digest(_backbone(run, random))


def table_of(run: Run, folder: Path, random: bool) -> FeatureTable:
    """Frozen features of everyone, computed once for a backbone."""
    files = {code: path for code, path in RunFolder(folder).center_files().items() if code != "CHEST"}
    backbone, step = _backbone(run, random), study_step(run, "image+text", "deephit")
    base, state = backbone_digest(backbone), AdaptedModel(backbone, step, seed=run.seed).state()
    seen = replace(run, backbone=_spec(run, random))
    return feature_table(
        folder / "features" / f"{base[:16]}.safetensors", seen, step, open_centers(files), base=base, state=state
    )


def _spec(run: Run, random: bool) -> Any:
    return replace(run.backbone, random_seed=0) if random else run.backbone


def _backbone(run: Run, random: bool) -> Backbone:
    return _loaded(json.dumps(asdict(_spec(run, random)), sort_keys=True))


@lru_cache(maxsize=2)
def _loaded(spec: str) -> Backbone:
    from common.config.run import BackboneSpec

    return load_backbone(BackboneSpec(**json.loads(spec)))


def tested_risks(run: Run, folder: Path, cohort: Cohort) -> Risks:
    """Risks of every arm as (seeds, n), each patient's from the fold that tests them."""
    study = run.study
    found: Risks = {}
    row = {patient: i for i, patient in enumerate(cohort.patients)}
    for cell in cells(study):
        for arm, tested in json.loads(cell.records(folder).read_text()).items():
            key = (cell.input, cell.loss, RANDOM if cell.random else arm_of(arm))
            risks = found.setdefault(key, np.full((len(study.seeds), len(row)), np.nan))
            for patient, risk in tested.items():
                risks[study.seeds.index(cell.seed), row[patient]] = risk
    return found
