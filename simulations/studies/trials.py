"""Trials: one step federated once, in one process, described by the overrides that anyone could type.

What aggregation studies are tables of. A trial leaves its test patients' records, its bytes and times as one JSON file,
and is not run again where that exists; workers take the next trial as they are done.
"""

from __future__ import annotations

import copy
import json
import shutil
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common.config.load import compose_run
from common.config.rules import check_run
from common.config.run import Run
from common.config.step import Step
from common.errors import RoundFailed
from common.files import write_json
from common.metrics import Estimate, written
from common.protocol.messages import State
from common.store.ledger import Ledger
from server.centers.enrolment import enrol
from server.centers.federation import Federation
from server.coordinator import Coordinator
from server.curriculum import train_step
from server.learning.start import starting_state
from server.report.reading.traffic import typical_bytes
from server.run.folder import RunFolder
from server.run.narration import Narrator
from simulations.comparison.paired import Patient, difference_of, value_of_patients
from simulations.comparison.patients import observe, open_centers, record_of
from simulations.virtual.centers import data_roots, write_centers
from simulations.virtual.fault_options import Fault
from simulations.virtual.faults import FaultyGrid
from simulations.virtual.federate import worker_count
from simulations.virtual.pool import side_by_side


@dataclass(frozen=True)
class Trial:
    """One federated run of one step.

    Args:
        name: of its row, unique with step and seed; for files and people.
        overrides: what it changes of the study's run.
        faults: what goes wrong in it, beside what the overrides say.
        trained: False: the start as it is, scored.
    """

    name: str
    step: str
    seed: int
    overrides: tuple[str, ...] = ()
    faults: tuple[Fault, ...] = ()
    trained: bool = True

    def __hash__(self) -> int:
        return hash(self.file)

    @property
    def file(self) -> str:
        """A file's name without its ending."""
        return "".join(c if c.isalnum() or c in "-_." else "_" for c in f"{self.step}-{self.name}-seed{self.seed}")


@dataclass
class Result:
    """What a trial left.

    Args:
        failed: why it has no trained state; empty where it has one.
        server_ms: median of a round's time in screening and aggregation.
        kept_bytes: what the server must keep between rounds beside the state.
        up, down: bytes of a round and center, median over rounds of the mean over centers.
        quarantined: updates that the guards stopped.
    """

    patients: list[dict[str, Any]] = field(default_factory=list)
    failed: str = ""
    kept_round: int = 0
    server_ms: float | None = None
    kept_bytes: int = 0
    up: float | None = None
    down: float | None = None
    quarantined: int = 0
    seconds: float = 0.0


def run_trials(
    trials: Sequence[Trial], run: Run, *, overrides: Sequence[str], folder: Path, say: Callable[[str], None]
) -> dict[Trial, Result]:
    """Run what is missing, one process per worker of the run, and read everything."""
    data_roots(run)  # made once, before workers would make it side by side
    waiting = [trial for trial in trials if not _file(folder, trial).exists()]
    say(f"{len(waiting)} of {len(trials)} trials to run")
    began = time.perf_counter()

    def finished(number: int, trial: Trial) -> None:
        if number % 10 == 0 or number == len(waiting):
            say(f"  {number}/{len(waiting)} after {time.perf_counter() - began:.0f} s")

    work = partial(run_trial, tuple(overrides), folder)
    side_by_side(work, waiting, workers=worker_count(run.runtime), finished=finished)
    return {trial: read_result(folder, trial) for trial in trials}


def read_result(folder: Path, trial: Trial) -> Result:
    """A trial's file."""
    return Result(**json.loads(_file(folder, trial).read_text()))


def _file(folder: Path, trial: Trial) -> Path:
    return folder / "trials" / f"{trial.file}.json"


# -------------------------------------------------------------------------------------------------- in a worker process


def run_trial(overrides: tuple[str, ...], folder: Path, trial: Trial) -> None:
    """Federate one step, score its test patients, keep the outcome."""
    began = time.process_time()
    run = copy.deepcopy(_composed((*overrides, *trial.overrides)))
    run.seed, run.steps = trial.seed, {trial.step: run.steps[trial.step]}
    run.faults |= {f"trial-{number}": fault for number, fault in enumerate(trial.faults)}
    check_run(run)
    torch.set_num_threads(run.runtime.threads)
    work = RunFolder(folder / "work" / trial.file)
    shutil.rmtree(work.path, ignore_errors=True)  # a trial that was stopped begins anew
    files, sizes = write_centers(run, work, data_roots(run))
    files = {code: path for code, path in files.items() if code != "CHEST"}
    grid = FaultyGrid(files, workers=0, sizes=sizes, faults=run.faults, seed=run.seed)
    try:
        result = _federated(run, run.steps[trial.step], work, grid, files, trained=trial.trained)
    finally:
        grid.close()
    result.seconds = time.process_time() - began
    write_json(_file(folder, trial), vars(result))
    shutil.rmtree(work.path, ignore_errors=True)


@lru_cache(maxsize=64)  # composing takes longer than a round
def _composed(overrides: tuple[str, ...]) -> Run:
    return compose_run(overrides)


def _federated(
    run: Run, step: Step, work: RunFolder, grid: FaultyGrid, files: dict[str, Path], *, trained: bool
) -> Result:
    leader = Coordinator(Federation(grid, patience_s=0.0), run, work, Narrator(None, say=lambda line: None))
    order = leader.order(step)
    enrolment = enrol(leader.federation, order)
    order = replace(order, state=starting_state(leader, step))
    state: State = order.state
    result = Result()
    if trained:
        try:
            state, result.kept_round = train_step(leader, order, enrolment)
        except RoundFailed as error:
            result.failed = str(error)
        _measure(result, leader.ledger, work, step)
    observed = observe(
        run, step, state, open_centers(files), base=order.base, since=result.kept_round, run_id=leader.run_id
    )
    result.patients = [
        {
            "center": o.center,
            "patient": o.patient,
            "record": {n: np.asarray(v).tolist() for n, v in o.observation.items()},
        }
        for o in observed
    ]
    return result


def _measure(result: Result, ledger: Ledger, work: RunFolder, step: Step) -> None:
    rounds = ledger.events("round_finished", step=step.name)
    result.server_ms = 1e3 * statistics.median(event["seconds"]["aggregate"] for event in rounds)
    for way in ("up", "down"):
        setattr(result, way, typical_bytes(rounds, step.name, way))
    result.quarantined = sum(len(event["quarantined"]) for event in rounds)
    memory = work.memory(step.name, len(rounds))
    result.kept_bytes = memory.stat().st_size if memory.exists() else 0


# ---------------------------------------------------------------------------------------------------- rows of results


@dataclass
class Scored:
    """A row's value over its seeds, and its paired difference from a reference row, 95 % intervals over patients."""

    value: float | None
    difference: Estimate = field(default_factory=lambda: Estimate(None))
    failed: str = ""


def score_row(
    step: Step, own: Sequence[Result], reference: Sequence[Result] | None, *, metric: str, draws: int
) -> Scored:
    """The metric, averaged over seeds, of the same patients in both rows; a row that failed has no value."""
    failed = next((result.failed for result in own if result.failed), "")
    if failed:
        return Scored(None, failed=failed)
    patients = _patients(own)
    value = value_of_patients(step, patients, metric)
    if reference is None or any(result.failed for result in reference):
        return Scored(value)
    return Scored(value, difference_of(step, patients, _patients(reference), metric, draws=draws))


def signed(difference: Estimate) -> tuple[str, str]:
    """A difference and its interval as two cells of a table; empty where there is none."""
    value = "" if difference.value is None else written(difference.value, signed=True)
    return value, difference.interval_text(signed=True)


def _patients(results: Sequence[Result]) -> list[Patient]:
    """Test patients with one record per seed; every seed scores the same patients."""
    first = results[0].patients
    records = [{(row["center"], row["patient"]): record_of(row) for row in r.patients} for r in results]
    keys = [(row["center"], row["patient"]) for row in first]
    return [Patient(c, p, 0, tuple(seed[c, p] for seed in records)) for c, p in keys]


def mean_of(results: Iterable[Result], name: str) -> float | None:
    """Mean of a field over the results that have it."""
    values = [getattr(result, name) for result in results if getattr(result, name) is not None]
    return statistics.mean(values) if values else None
