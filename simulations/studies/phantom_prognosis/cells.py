"""What the study varies: its options, its cells, and the step of a cell."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from common.config.adapter import Adapter, FusionPart, MlpPart
from common.config.run import Run
from common.config.step import Selection, Step
from common.data.batch import CT, EHR
from simulations.comparison.names import CENTRALIZED, FEDERATED, LOCAL
from simulations.studies.options.prognosis import PhantomPrognosisStudy

ARMS = (FEDERATED, CENTRALIZED, LOCAL)


MODALITIES = {"text": [EHR], "image": [CT], "image+text": [CT, EHR]}


NEWTON, RECORDS = "Newton on frozen features", "Newton on the record"


@dataclass(frozen=True)
class Cell:
    """One input, loss, fold and seed on one backbone: what a worker does at a time."""

    input: str
    loss: str
    fold: int
    seed: int
    random: bool = False

    @property
    def name(self) -> str:
        """For files."""
        return f"{'random-' if self.random else ''}{self.input}-{self.loss}-fold{self.fold}-seed{self.seed}"

    def records(self, folder: Path) -> Path:
        """Where its patients' risks are, in the study's folder."""
        return folder / "records" / f"{self.name}.json"


def cells(study: PhantomPrognosisStudy) -> Iterator[Cell]:
    """Every cell; a random backbone only where there is an image (the text side alone says nothing about images)."""
    for name, loss, fold, seed in product(study.inputs, study.losses, range(study.folds), study.seeds):
        yield Cell(name, loss, fold, seed)
        if name != "text":
            yield Cell(name, loss, fold, seed, random=True)


def study_step(run: Run, name: str, loss: str) -> Step:
    """The relapse step with adapters after the frozen encoders only."""
    study = run.study
    step = replace(run.steps["relapse"], name=f"{name}-{loss}", modalities=MODALITIES[name], rounds=study.rounds)
    sources = {"image": CT, "text": EHR}
    parts: dict[str, Any] = {s: MlpPart(input=s) for s, modality in sources.items() if modality in step.modalities}
    step.adapter = Adapter(parts | {"fusion": FusionPart()})
    step.task = replace(step.task, loss=loss)
    step.training = replace(
        step.training, batch=study.batch, learning_rate=study.learning_rate, augment=False, epochs=1
    )
    step.selection = Selection(metric="nll" if loss == "cox" else "loss")
    step.centers = step.evaluate_at = ["*"]
    return step
