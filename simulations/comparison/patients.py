"""Patient-level scores and pictures: possible only where one process may see every center, that is, in a simulation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from client.center.center import Center
from client.training.observation import observe as records_of
from client.training.prediction import answered
from common.config.run import Run
from common.config.step import Step
from common.data.batch import Batch
from common.data.subgroups import members_of
from common.protocol.messages import State
from common.tasks import Observation
from simulations.comparison.baselines import baseline_order


@dataclass(frozen=True)
class Observed:
    """One test patient's record under one state, and the subgroups that the patient is of."""

    center: str
    patient: str
    observation: Observation
    levels: tuple[str, ...] = ()

    def row(self) -> dict[str, Any]:
        """As a folder of records holds it, in JSON."""
        record = {name: np.asarray(value, np.float64).tolist() for name, value in self.observation.items()}
        of = {"levels": list(self.levels)} if self.levels else {}
        return {"center": self.center, "patient": self.patient, "record": record} | of


def observe(
    run: Run,
    step: Step,
    state: State,
    centers: Sequence[Center],
    *,
    base: str,
    mode: str = "",
    since: int = 0,
    run_id: str = "",
) -> list[Observed]:
    """Every test patient of the centers that a mode can show, scored under a state, ordered by center and patient.

    Args:
        since: the kept round of a federation, whose own tensors (FedBN's, Ditto's) each center puts in their places.
        run_id: the federation's own id (`run_id_of`): those tensors are on its shelf.
    """
    asked = baseline_order(run, step, base=base, state=state)
    order = replace(asked, subset="test", mode=mode, since=since, run=run_id)
    if not centers:
        return []
    found = []
    model, task = centers[0].model(order)  # one for all: a simulation's centers share a device
    for center in sorted(centers, key=lambda c: c.code):
        cases = center.case_set(order, "test", model)
        model.load(center.own_state(order))
        observed = records_of(order, model, task, cases)
        shown = [cases.cases[i] for i in cases.having(mode)]
        levels = [tuple(level for level, own in members_of(step, [case.record]).items() if own) for case in shown]
        found += [
            Observed(center.code, case.patient, o, own)
            for case, (o, _), own in zip(shown, observed, levels, strict=True)
        ]
    return found


def record_of(row: Mapping[str, Any]) -> Observation:
    """The record of `Observed.row`, once it was JSON."""
    return {name: np.asarray(value) for name, value in row["record"].items()}


@dataclass
class Picture:
    """What an overlay shows: volumes (D, H, W) on the prepared grid; labels are structure numbers.

    Args:
        rank: best, median or worst of the test cases.
        dice: by structure that was drawn or predicted, where test cases are scored.
        cases: among how many it was chosen.
        spacing_mm: of the prepared grid, along (D, H, W).
    """

    center: str
    batch: Batch
    truth: torch.Tensor
    prediction: torch.Tensor
    rank: str
    dice: dict[str, float]
    cases: int
    spacing_mm: Sequence[float]

    @property
    def mean_dice(self) -> float:
        """Over the structures."""
        return sum(self.dice.values()) / len(self.dice)


def pictures(
    run: Run,
    step: Step,
    state: State,
    centers: Sequence[Center],
    observed: Sequence[Observed],
    *,
    base: str,
    since: int = 0,
    run_id: str = "",
) -> Iterator[Picture]:
    """The test cases with the best, the median and the worst Dice, over all centers; fewer where there are fewer.

    Args:
        observed: every test patient, from `observe` with the same state, ``since`` and ``run_id``.
    """
    found = [(o, dice_of(step, o.observation)) for o in observed]
    scored = [(_mean(dice), o.center, o.patient, dice) for o, dice in found if dice]
    asked = baseline_order(run, step, base=base, state=state)
    order = replace(asked, subset="test", since=since, run=run_id)
    by_code = {center.code: center for center in centers}
    model = centers[0].model(order)[0] if centers else None
    for rank, (_, code, patient, dice) in ranked(sorted(scored, key=lambda one: one[:3])):
        assert model is not None
        cases = by_code[code].case_set(order, "test", model)
        [position] = [i for i, case in enumerate(cases.cases) if case.patient == patient]
        batch = cases.collate([position])
        model.load(by_code[code].own_state(order))  # the picture is of the prediction that was scored
        with torch.no_grad():
            output = answered(model, batch.to(model.device), step).cpu()
        truth, prediction = batch.target["mask"][0, 0], output[0].argmax(dim=0)
        yield Picture(code, batch, truth, prediction, rank, dice, len(scored), step.view.spacing_mm)


Scored = tuple[float, str, str, dict[str, float]]


def ranked(scored: Sequence[Scored]) -> list[tuple[str, Scored]]:
    """The best, the median and the worst of cases sorted by their Dice, each case once."""
    places = {"best": len(scored) - 1, "median": len(scored) // 2, "worst": 0} if scored else {}
    once = {place: name for name, place in reversed(places.items())}
    return [(name, scored[place]) for name, place in places.items() if once[place] == name]


def dice_of(step: Step, observation: Observation) -> dict[str, float]:
    """Dice by structure of a segmentation's record, without those that nobody drew and nobody predicted."""
    both, volumes = observation["intersection"], observation["predicted"] + observation["truth"]
    named = zip(step.task.structures, both, volumes, strict=True)
    return {name: float(2 * i / v) for name, i, v in named if v > 0}


def _mean(dice: dict[str, float]) -> float:
    return sum(dice.values()) / len(dice)


def open_centers(files: dict[str, Path], codes: Sequence[str] | None = None) -> list[Center]:
    """Centers of a simulation, by code."""
    return [Center.open(files[code]) for code in sorted(files) if codes is None or code in codes]
