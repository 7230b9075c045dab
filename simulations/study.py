"""Compare: a curriculum federated, centralized and at each center alone, on the same splits, seeds and samples.

Every arm leaves its test patients' records on disk; paired differences come from resampling patients. Finished pieces
are kept, so that a stopped comparison continues.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from common.backbones import backbone_digest, load_backbone
from common.bank import AdapterBank
from common.config.load import compose_run
from common.config.rules import check_run
from common.config.schema import Run, Step
from common.errors import ConfigError
from common.files import write_json, write_tensors
from common.ledger import Ledger
from common.model import AdaptedModel
from common.orders import State
from server.finish import verify_in_fresh_process
from server.folder import RunFolder
from simulations.baselines import PooledCenter, baseline_order, train_pooled
from simulations.patients import observe, open_centers
from simulations.run import RUNS, federate, worker_count

FEDERATED, CENTRALIZED, LOCAL, RANDOM, UNTRAINED = "federated", "centralized", "local", "random backbone", "untrained"


@dataclass(frozen=True)
class Cell:
    """One fold and seed."""

    fold: int
    seed: int

    @property
    def name(self) -> str:
        """For folders."""
        return f"fold{self.fold}-seed{self.seed}"


@dataclass(frozen=True)
class Job:
    """One arm's work in one cell, for a worker process."""

    arm: str
    cell: Cell
    folder: Path  # of the comparison
    overrides: tuple[str, ...]
    center: str | None = None  # local only: whose

    @property
    def place(self) -> Path:
        """Where the job leaves its records."""
        return (
            self.folder
            / "records"
            / self.cell.name
            / (self.arm if self.center is None else f"{self.arm}-{self.center}")
        )


@dataclass(frozen=True)
class Comparing:
    """A comparison's configuration and place."""

    run: Run
    folder: Path
    overrides: tuple[str, ...]

    @property
    def cells(self) -> list[Cell]:
        """Every fold with every seed."""
        return [Cell(f, s) for f, s in product(self.run.compare.folds, self.run.compare.seeds)]

    def arm_folder(self, arm: str, cell: Cell) -> RunFolder:
        """A federated arm's run folder."""
        return RunFolder(self.folder / "arms" / f"{arm.replace(' ', '-')}-{cell.name}")

    def arm_overrides(self, arm: str, cell: Cell) -> tuple[str, ...]:
        """The command line that composes one arm of one cell."""
        own = (f"data.split.fold={cell.fold}", f"seed={cell.seed}", "with_controls=true")
        return (*self.overrides, *own, *(("backbone.random_seed=0",) if arm == RANDOM else ()))


def prepare(overrides: Sequence[str]) -> Comparing:
    """Compose and check a comparison."""
    run = compose_run([*overrides, "with_controls=true"])
    check_run(run)
    _check_grids(run)
    name = run.name if run.name != run.curriculum else f"compare-{run.curriculum}"
    return Comparing(run, RUNS / name, tuple(overrides))


def _check_grids(run: Run) -> None:
    """Every arm of a comparison needs the same survival grid; quantiles would be chosen by each run anew."""
    for name, step in run.steps.items():
        if getattr(step.task, "grid", "equal") == "quantiles" and not step.task.cuts_days:
            raise ConfigError(
                f"Step '{name}' chooses its grid from the run's own centers, which a comparison's other arms cannot "
                f"follow: set steps.{name}.task.cuts_days to the cuts that one run wrote to its ledger (grid_chosen)."
            )


def run_arms(comparing: Comparing, *, say=print) -> None:
    """Run everything that is not finished: the federated arms one by one, then the baselines side by side."""
    jobs: list[Job] = []
    for cell in comparing.cells:
        for arm in [FEDERATED, *([RANDOM] if comparing.run.compare.random_backbone else [])]:
            say(f"{arm}, {cell.name}")
            _federated(comparing, arm, cell)
        jobs += _jobs(comparing, cell)
    waiting = [job for job in jobs if not (job.place / "done.json").exists()]
    say(f"{len(waiting)} of {len(jobs)} baseline jobs to run")
    with ProcessPoolExecutor(worker_count(comparing.run.runtime), multiprocessing.get_context("spawn")) as pool:
        futures = {pool.submit(run_job, job): job for job in waiting}
        for number, future in enumerate(as_completed(futures), start=1):
            future.result()
            say(f"  {number}/{len(waiting)} {futures[future].place.relative_to(comparing.folder)}")


def _federated(comparing: Comparing, arm: str, cell: Cell) -> None:
    overrides = comparing.arm_overrides(arm, cell)
    run = compose_run(overrides)
    if arm == RANDOM:
        run.steps = {name: step for name, step in run.steps.items() if name not in run.controls}
        overrides = (
            *comparing.overrides,
            f"data.split.fold={cell.fold}",
            f"seed={cell.seed}",
            "backbone.random_seed=0",
        )
    folder = comparing.arm_folder(arm, cell)
    if not Ledger(folder.ledger).events("verified"):
        federate(compose_run(overrides), folder, overrides)
        verify_in_fresh_process(folder.path)


def _jobs(comparing: Comparing, cell: Cell) -> list[Job]:
    def job(arm: str, center: str | None = None) -> Job:
        return Job(arm, cell, comparing.folder, comparing.overrides, center)

    ledger = Ledger(comparing.arm_folder(FEDERATED, cell).ledger)
    trained = sorted({center for event in ledger.events("step_started") for center in event["centers"]})
    scored = [job(FEDERATED), job(UNTRAINED), *([job(RANDOM)] if comparing.run.compare.random_backbone else [])]
    return [job(CENTRALIZED), *(job(LOCAL, center) for center in trained), *scored]


# ------------------------------------------------------------------------------------------------- in a worker process


def run_job(job: Job) -> None:
    """One arm of one cell: train where it is a baseline, then record every test patient."""
    comparing = Comparing(compose_run([*job.overrides, "with_controls=true"]), job.folder, job.overrides)
    run = compose_run(comparing.arm_overrides(job.arm, job.cell))
    torch.set_num_threads(run.runtime.threads)
    federated = comparing.arm_folder(FEDERATED, job.cell)
    backbone = load_backbone(run.backbone)
    base = backbone_digest(backbone)
    files = {path.stem: path for path in federated.centers.glob("*.yaml")}
    states: dict[str, State] = {}
    for event in Ledger(federated.ledger).events("step_finished"):
        step = run.steps[event["step"]]
        started = Ledger(federated.ledger).events("step_started", step=step.name)[0]
        evaluated = [c for c in event["evaluated_at"] if job.center in (None, c)]
        trains = [c for c in started["centers"] if job.center in (None, c)]
        if step.rounds == 0 or not evaluated or (job.arm in (CENTRALIZED, LOCAL) and not trains):
            continue
        if job.arm in (CENTRALIZED, LOCAL, RANDOM) and step.name in run.controls:
            continue
        start = AdaptedModel(backbone, step, seed=run.seed).state()
        state = _state(job, comparing, run, step, base, start, states, [files[c] for c in trains])
        states[step.name] = state
        found = observe(run, step, state, open_centers(files, evaluated), base=base)
        write_json(
            job.place / f"{step.name}.json",
            [{"center": o.center, "patient": o.patient, "record": _plain(o.observation)} for o in found],
        )
    write_json(job.place / "done.json", {"arm": job.arm, "cell": job.cell.name})


def _state(
    job: Job, comparing: Comparing, run: Run, step: Step, base: str, start: State, earlier: dict[str, State],
    files: list[Path],
) -> State:  # fmt: skip
    if job.arm in (FEDERATED, RANDOM):
        bank = AdapterBank(comparing.arm_folder(job.arm, job.cell).bank)
        return bank.get(bank.head(step.writes or step.name))
    begun = earlier.get(step.starts_from or "", {})
    start = {name: begun.get(name, tensor) for name, tensor in start.items()}
    if job.arm == UNTRAINED:
        return start
    path = job.place / f"{step.name}.safetensors"
    if not path.exists():
        center = PooledCenter([*open_centers({file.stem: file for file in files})])
        trained = train_pooled(center, baseline_order(run, step, base=base, state=start))
        write_tensors(path, trained.state)
        write_json(path.with_suffix(".train.json"), {"kept": trained.kept_pass, "validation": trained.validation})
    return load_file(path)


def _plain(observation: dict[str, Any]) -> dict[str, Any]:
    return {name: np.asarray(value, np.float64).tolist() for name, value in observation.items()}
