"""Compare: a curriculum federated, centralized and at each center alone, on the same splits, seeds and samples.

Every arm leaves its test patients' records on disk; paired differences come from resampling patients. Finished pieces
are kept, so that a stopped comparison continues.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from common.backbones import backbone_digest, load_backbone
from common.config.load import compose_run
from common.config.run import Run
from common.config.step import Step
from common.files import write_json, write_tensors
from common.model.adapted import AdaptedModel
from common.model.state import what_fits
from common.protocol.messages import State
from common.store.bank import AdapterBank
from common.store.ledger import Ledger
from server.coordinator import run_id_of
from server.run.finish import verify_in_fresh_process
from simulations.comparison.baselines import Trained, baseline_order, pooled, train_pooled
from simulations.comparison.comparing import Cell, Comparing, Job, records_name
from simulations.comparison.exact_arm import has_exact_form, observe_exact
from simulations.comparison.names import CENTRALIZED, EXACT, FEDERATED, LOCAL, RANDOM, UNTRAINED
from simulations.comparison.patients import Observed, observe, open_centers
from simulations.comparison.tuning import Values, trial_overrides, tune_federated, write_choice
from simulations.virtual.federate import federate, worker_count
from simulations.virtual.pool import side_by_side

BASELINES = (CENTRALIZED, LOCAL)  # arms that this module trains itself
Say = Callable[[str], None]


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
    waiting = [job for job in jobs if not is_done(comparing, job)]
    _side_by_side(comparing, "baseline", run_job, waiting, say)


def _side_by_side(
    comparing: Comparing, what: str, work: Callable[[Comparing, Job], None], jobs: Sequence[Job], say: Say
) -> None:
    def finished(number: int, job: Job) -> None:
        say(f"  {number}/{len(jobs)} {what} {job.cell.name}/{job.name}")

    say(f"{len(jobs)} {what} jobs to run")
    side_by_side(partial(work, comparing), jobs, workers=worker_count(comparing.run.runtime), finished=finished)


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
    scored = [FEDERATED, EXACT, UNTRAINED, *([RANDOM] if comparing.run.compare.random_backbone else [])]
    local = [Job(LOCAL, cell, center) for center in trained_centers(comparing, cell)]
    return [Job(CENTRALIZED, cell), *local, *(Job(arm, cell) for arm in scored)]


def trained_centers(comparing: Comparing, cell: Cell) -> list[str]:
    """Centers that took part in any step of a cell's federated arm."""
    ledger = Ledger(comparing.arm_folder(FEDERATED, cell).ledger)
    return sorted({center for event in ledger.events("step_started") for center in event["centers"]})


def is_done(comparing: Comparing, job: Job) -> bool:
    """Whether a job has left all its records."""
    return (comparing.records(job) / "done.json").exists()


# ------------------------------------------------------------------------------------------------- in a worker process


def run_job(comparing: Comparing, job: Job) -> None:
    """One arm of one cell: train where it is a baseline, then record every test patient."""
    folder = comparing.records(job)
    run = compose_run(comparing.arm_overrides(job.arm, job.cell, job.center))
    states: dict[str, State] = {}
    for work in _steps(job, comparing, run):
        if job.arm == EXACT:
            _record_exact(folder, work)
            continue
        step = work.step
        states[step.name] = _state(job, comparing, work, states)
        centers = open_centers(work.files, work.evaluated)
        since = _best_round(job, comparing, step)
        run_id = run_id_of(Ledger(comparing.arm_folder(job.arm, job.cell).ledger))
        for mode in dict.fromkeys(["", *step.modes]):
            found = observe(
                run, step, states[step.name], centers, base=work.base, mode=mode, since=since, run_id=run_id
            )
            write_records(folder, step.name, found, mode=mode)
    write_json(folder / "done.json", {"arm": job.arm, "cell": job.cell.name})


def _record_exact(folder: Path, work: StepWork) -> None:
    if not has_exact_form(work.step):
        return
    trained, evaluated = (open_centers(work.files, codes) for codes in (work.trained, work.evaluated))
    found = observe_exact(work.run, work.step, trained=trained, evaluated=evaluated, base=work.base)
    write_records(folder, work.step.name, found)


def write_records(folder: Path, step: str, found: Sequence[Observed], *, mode: str = "") -> None:
    """Leave the test patients' records of a step, as one mode shows them, in a job's folder."""
    rows = [
        {"center": o.center, "patient": o.patient, "record": _plain(o.observation)}
        | ({"levels": list(o.levels)} if o.levels else {})
        for o in found
    ]
    write_json(folder / records_name(step, mode), rows)


def tune_job(comparing: Comparing, job: Job) -> None:
    """A baseline's trials: every rate for a few passes, on the arm's own validation cases."""
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
    path = comparing.records(job) / f"{step.name}.safetensors"
    if not path.exists():
        trained = _train(work, _start(work, earlier))
        write_tensors(path, trained.state)
        cost = {"passes": len(trained.validation), "steps": trained.batches, "cases": trained.cases}
        course = {"kept": trained.best_pass, "validation": trained.validation}
        write_json(path.with_suffix(".train.json"), course | cost)
    return load_file(path)


def _best_round(job: Job, comparing: Comparing, step: Step) -> int:
    """Of a federated arm; 0 for the others, which have no rounds."""
    if job.arm not in (FEDERATED, RANDOM):
        return 0
    [event] = Ledger(comparing.arm_folder(job.arm, job.cell).ledger).events("step_finished", step=step.name)[-1:]
    return event["kept_round"]


def _start(work: StepWork, earlier: dict[str, State]) -> State:
    """As `server.curriculum.starting_state`: what fits of the step that it starts from, the rest from the seed."""
    return work.start | what_fits(earlier.get(work.step.starts_from or "", {}), work.start)


def _train(work: StepWork, start: State) -> Trained:
    center = pooled(open_centers(work.files, work.trained))
    return train_pooled(center, baseline_order(work.run, work.step, base=work.base, state=start))


def _plain(observation: dict[str, Any]) -> dict[str, Any]:
    return {name: np.asarray(value, np.float64).tolist() for name, value in observation.items()}
