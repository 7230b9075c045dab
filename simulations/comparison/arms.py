"""Compare: a curriculum federated, centralized and at each center alone, on the same splits, seeds and samples.

Every arm leaves its test patients' records on disk; paired differences come from resampling patients. Finished pieces
are kept, so that a stopped comparison continues.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from common.backbones import backbone_digest, load_backbone
from common.config.load import compose_run
from common.config.rules import check_run
from common.config.run import Run
from common.config.step import Step
from common.errors import ConfigError
from common.files import write_json, write_tensors
from common.model.adapted import AdaptedModel
from common.model.state import what_fits
from common.protocol.messages import State
from common.store.bank import AdapterBank
from common.store.ledger import Ledger
from server.run.finish import verify_in_fresh_process
from server.run.folder import RunFolder
from simulations.comparison.baselines import PooledCenter, Trained, baseline_order, train_pooled
from simulations.comparison.exact_arm import EXACT, has_exact_form, observe_exact
from simulations.comparison.patients import Observed, observe, open_centers
from simulations.comparison.tuning import (
    Values,
    read_choice,
    trial_overrides,
    tune_federated,
    tuned_overrides,
    write_choice,
)
from simulations.virtual.federate import federate, worker_count

FEDERATED, CENTRALIZED, LOCAL, RANDOM, UNTRAINED = "federated", "centralized", "local", "random backbone", "untrained"
BASELINES = (CENTRALIZED, LOCAL)  # arms that this module trains itself


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
    def name(self) -> str:
        """For folders."""
        return self.arm if self.center is None else f"{self.arm}-{self.center}"

    @property
    def place(self) -> Path:
        """Where the job leaves its records."""
        return self.folder / "records" / self.cell.name / self.name


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

    def choice_path(self, arm: str, cell: Cell, center: str | None = None) -> Path:
        """Where an arm's tuned learning rates are: one choice per fold."""
        name = arm if center is None else f"{arm}-{center}"
        return self.folder / "tuning" / f"fold{cell.fold}" / f"{name.replace(' ', '-')}.json"

    @property
    def tunes(self) -> bool:
        """Whether there is anything to choose from."""
        return self.run.compare.learning_rates != [1.0]

    def untuned_overrides(self, arm: str, cell: Cell) -> tuple[str, ...]:
        """The command line of one arm of one cell before its learning rates are chosen; only one arm needs controls."""
        own = (f"data.split.fold={cell.fold}", f"seed={cell.seed}", f"with_controls={arm == FEDERATED}".lower())
        return (*self.overrides, *own, *(("backbone.random_seed=0",) if arm == RANDOM else ()))

    def arm_overrides(self, arm: str, cell: Cell, center: str | None = None) -> tuple[str, ...]:
        """The command line that composes one arm of one cell, its tuned rates included."""
        untuned = self.untuned_overrides(arm, cell)
        choice = read_choice(self.choice_path(arm, cell, center))
        return (*untuned, *tuned_overrides(compose_run(untuned), choice)) if choice else untuned


def prepare(overrides: Sequence[str]) -> Comparing:
    """Compose and check a comparison."""
    run = compose_run([*overrides, "with_controls=true"])
    check_run(run)
    _check_grids(run)
    name = run.name if run.name != run.curriculum else f"compare-{run.curriculum}"
    return Comparing(run, Path(run.out) / name, tuple(overrides))


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
    for cell in comparing.cells:
        for arm in [FEDERATED, *([RANDOM] if comparing.run.compare.random_backbone else [])]:
            say(f"{arm}, {cell.name}")
            _federated(comparing, arm, cell)
    jobs = [job for cell in comparing.cells for job in _jobs(comparing, cell)]
    if comparing.tunes:
        chosen = {comparing.choice_path(j.arm, j.cell, j.center): j for j in reversed(jobs) if j.arm in BASELINES}
        _side_by_side(comparing, "tuning", tune_job, [job for path, job in chosen.items() if not path.exists()], say)
    waiting = [job for job in jobs if not (job.place / "done.json").exists()]
    _side_by_side(comparing, "baseline", run_job, waiting, say)


def _side_by_side(
    comparing: Comparing, what: str, work: Callable[[Job], None], jobs: Sequence[Job], say: Callable[[str], None]
) -> None:
    say(f"{len(jobs)} {what} jobs to run")
    with ProcessPoolExecutor(worker_count(comparing.run.runtime), multiprocessing.get_context("spawn")) as pool:
        futures = {pool.submit(work, job): job for job in jobs}
        for number, future in enumerate(as_completed(futures), start=1):
            future.result()
            say(f"  {number}/{len(jobs)} {what} {futures[future].cell.name}/{futures[future].name}")


def _federated(comparing: Comparing, arm: str, cell: Cell) -> None:
    folder = comparing.arm_folder(arm, cell)
    if Ledger(folder.ledger).events("verified"):
        return
    path = comparing.choice_path(arm, cell)
    if comparing.tunes and not path.exists():
        untuned = comparing.untuned_overrides(arm, cell)
        tune_federated(compose_run(untuned), untuned, path)
    overrides = comparing.arm_overrides(arm, cell)
    federate(compose_run(overrides), folder, overrides)
    verify_in_fresh_process(folder.path)


def _jobs(comparing: Comparing, cell: Cell) -> list[Job]:
    def job(arm: str, center: str | None = None) -> Job:
        return Job(arm, cell, comparing.folder, comparing.overrides, center)

    ledger = Ledger(comparing.arm_folder(FEDERATED, cell).ledger)
    trained = sorted({center for event in ledger.events("step_started") for center in event["centers"]})
    scored = [
        job(FEDERATED),
        job(EXACT),
        job(UNTRAINED),
        *([job(RANDOM)] if comparing.run.compare.random_backbone else []),
    ]
    return [job(CENTRALIZED), *(job(LOCAL, center) for center in trained), *scored]


# ------------------------------------------------------------------------------------------------- in a worker process


def run_job(job: Job) -> None:
    """One arm of one cell: train where it is a baseline, then record every test patient."""
    comparing = _comparing(job)
    run = compose_run(comparing.arm_overrides(job.arm, job.cell, job.center))
    states: dict[str, State] = {}
    for work in _steps(job, comparing, run):
        if job.arm == EXACT:
            _record_exact(job, work)
            continue
        step = work.step
        states[step.name] = _state(job, comparing, work, states)
        centers = open_centers(work.files, work.evaluated)
        since = _kept_round(job, comparing, step)
        for mode in dict.fromkeys(["", *step.modes]):
            found = observe(run, step, states[step.name], centers, base=work.base, mode=mode, since=since)
            write_records(job.place, step.name, found, mode=mode)
    write_json(job.place / "done.json", {"arm": job.arm, "cell": job.cell.name})


def _record_exact(job: Job, work: StepWork) -> None:
    if not has_exact_form(work.step):
        return
    trained, evaluated = (open_centers(work.files, codes) for codes in (work.trained, work.evaluated))
    found = observe_exact(work.run, work.step, trained=trained, evaluated=evaluated, base=work.base)
    write_records(job.place, work.step.name, found)


def write_records(place: Path, step: str, found: Sequence[Observed], *, mode: str = "") -> None:
    """Leave the test patients' records of a step, as one mode shows them, in a job's folder."""
    rows = [{"center": o.center, "patient": o.patient, "record": _plain(o.observation)} for o in found]
    write_json(place / records_name(step, mode), rows)


def records_name(step: str, mode: str = "") -> str:
    """File name of a step's records in one mode; the empty mode shows whatever a case has."""
    return f"{step}@{mode}.json" if mode else f"{step}.json"


def tune_job(job: Job) -> None:
    """A baseline's trials: every rate for a few passes, on the arm's own validation cases."""
    comparing = _comparing(job)
    values: Values = {}
    for factor in comparing.run.compare.learning_rates:
        untuned = comparing.untuned_overrides(job.arm, job.cell)
        run = compose_run((*untuned, *trial_overrides(compose_run(untuned), factor)))
        states: dict[str, State] = {}
        for work in _steps(job, comparing, run):
            trained = _train(work, _start(work, states))
            states[work.step.name] = trained.state
            values.setdefault(work.step.name, {})[f"{factor:g}"] = trained.value
    write_choice(comparing.choice_path(job.arm, job.cell, job.center), values)


@dataclass(frozen=True)
class StepWork:
    """One step as one job sees it."""

    run: Run
    step: Step
    start: State  # the parts' seeded initial values
    base: str
    trained: list[str]  # centers
    evaluated: list[str]
    files: dict[str, Path]  # every center's configuration


def _comparing(job: Job) -> Comparing:
    return Comparing(compose_run([*job.overrides, "with_controls=true"]), job.folder, job.overrides)


def _steps(job: Job, comparing: Comparing, run: Run) -> Iterator[StepWork]:
    """The trained steps of a job's run that concern it, at the centers that trained and scored them federated."""
    torch.set_num_threads(run.runtime.threads)
    federated = comparing.arm_folder(FEDERATED, job.cell)
    ledger = Ledger(federated.ledger)
    backbone = load_backbone(run.backbone)
    base = backbone_digest(backbone)
    files = {path.stem: path for path in federated.centers.glob("*.yaml")}
    for event in ledger.events("step_finished"):
        step = run.steps.get(event["step"])
        if step is None or step.rounds == 0:
            continue
        [started] = ledger.events("step_started", step=step.name)[:1]
        evaluated = [c for c in event["evaluated_at"] if job.center in (None, c)]
        trained = [c for c in started["centers"] if job.center in (None, c)]
        if evaluated and (trained or job.arm not in BASELINES):
            start = AdaptedModel(backbone, step, seed=run.seed).state()
            yield StepWork(run, step, start, base, trained, evaluated, files)


def _state(job: Job, comparing: Comparing, work: StepWork, earlier: dict[str, State]) -> State:
    step = work.step
    if job.arm in (FEDERATED, RANDOM):
        bank = AdapterBank(comparing.arm_folder(job.arm, job.cell).bank)
        return bank.get(bank.head(step.writes or step.name))
    if job.arm == UNTRAINED:
        return _start(work, earlier)
    path = job.place / f"{step.name}.safetensors"
    if not path.exists():
        trained = _train(work, _start(work, earlier))
        write_tensors(path, trained.state)
        write_json(path.with_suffix(".train.json"), {"kept": trained.kept_pass, "validation": trained.validation})
    return load_file(path)


def _kept_round(job: Job, comparing: Comparing, step: Step) -> int:
    """Of a federated arm; 0 for the others, which have no rounds."""
    if job.arm not in (FEDERATED, RANDOM):
        return 0
    [event] = Ledger(comparing.arm_folder(job.arm, job.cell).ledger).events("step_finished", step=step.name)[-1:]
    return event["kept_round"]


def _start(work: StepWork, earlier: dict[str, State]) -> State:
    """As `server.curriculum.starting_state`: what fits of the step that it starts from, the rest from the seed."""
    return work.start | what_fits(earlier.get(work.step.starts_from or "", {}), work.start)


def _train(work: StepWork, start: State) -> Trained:
    center = PooledCenter(open_centers(work.files, work.trained))
    return train_pooled(center, baseline_order(work.run, work.step, base=work.base, state=start))


def _plain(observation: dict[str, Any]) -> dict[str, Any]:
    return {name: np.asarray(value, np.float64).tolist() for name, value in observation.items()}
