"""Patient-level scores and pictures: possible only where one process may see every center, that is, in a simulation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from client.center.center import Center
from client.training.observation import observe as records_of
from client.training.prediction import predict
from common.config.run import Run
from common.config.step import Step
from common.data.batch import Batch
from common.protocol.messages import State
from common.tasks import Observation
from simulations.comparison.baselines import baseline_order


@dataclass(frozen=True)
class Observed:
    """One test patient's record under one state."""

    center: str
    patient: str
    observation: Observation


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
        found += [Observed(center.code, case.patient, o) for case, (o, _) in zip(shown, observed, strict=True)]
    return found


@dataclass
class Picture:
    """What an overlay shows: volumes (D, H, W) on the prepared grid; labels are structure numbers."""

    center: str
    batch: Batch
    truth: torch.Tensor
    prediction: torch.Tensor


def pictures(run: Run, step: Step, state: State, centers: Sequence[Center], *, base: str) -> Iterator[Picture]:
    """The first test case of each center, segmented."""
    order = baseline_order(run, step, base=base, state=state)
    if not centers:
        return
    model, _ = centers[0].model(order)
    for center in centers:
        cases = center.case_set(order, "test", model)
        if len(cases) == 0:
            continue
        batch = cases.collate([0])
        with torch.no_grad():
            output = predict(model, batch, features=None, window=step.view.window)
        yield Picture(center.code, batch, batch.target["mask"][0, 0], output[0].argmax(dim=0))


def open_centers(files: dict[str, Path], codes: Sequence[str] | None = None) -> list[Center]:
    """Centers of a simulation, by code."""
    return [Center.open(files[code]) for code in sorted(files) if codes is None or code in codes]
