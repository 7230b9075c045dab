"""Compare: a curriculum federated, centralized and at each center alone, on the same splits, seeds and samples.

Every arm leaves its test patients' records on disk; paired differences come from resampling patients. Finished pieces
are kept, so that a stopped comparison continues.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

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
from common.runtime.pulse import under_way
from common.store.bank import AdapterBank
from common.store.ledger import Ledger
from common.store.lineage import state_in_use
from server.coordinator import run_id_of
from server.run.finish import verify_in_fresh_process
from simulations.comparison.baselines import Trained, baseline_order, pooled, train_pooled
from simulations.comparison.beside import RECORDERS, At, beside, federations
from simulations.comparison.comparing import Cell, Comparing, Job, records_name
from simulations.comparison.names import (
    ALONE,
    CENTRALIZED,
    FEDERATED,
    FEDERATIONS,
    LEFT_OUT,
    LOCAL,
    UNET_CENTRALIZED,
    UNET_LOCAL,
    UNTRAINED,
)
from simulations.comparison.patients import Observed, observe, open_centers
from simulations.comparison.tuning import Values, trial_overrides, tune_federated, write_choice
from simulations.virtual.federate import federate, worker_count
from simulations.virtual.pool import side_by_side

BASELINES = (CENTRALIZED, LOCAL, LEFT_OUT, UNET_CENTRALIZED, UNET_LOCAL)  # arms that this module trains itself
Say = Callable[[str], None]


def run_arms(comparing: Comparing, *, say=print) -> None:
    """Run everything that is not finished: the federated arms one by one, then the baselines side by side."""
    for cell in comparing.cells:
        for arm in federations(comparing.run.compare):
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
        under_way(f"{what} job {number + 1} of {len(jobs)}" if number < len(jobs) else "comparing")

    names = ", ".join(dict.fromkeys(job.arm for job in jobs))
    say(f"{len(jobs)} {what} jobs to run{f': {names}' if names else ''}")
    under_way(f"{what} job 1 of {len(jobs)}")
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
    under_way("checking every finished step in a fresh process")
    verify_in_fresh_process(folder.path)


def _jobs(comparing: Comparing, cell: Cell) -> list[Job]:
    shown = beside(comparing.run.compare)
    centers = trained_centers(comparing, cell)
    own = [Job(arm, cell, center) for arm in (*ALONE, LEFT_OUT) if arm in shown for center in centers]
    whole = [arm for arm in (CENTRALIZED, UNET_CENTRALIZED) if arm in shown]
    scored = [FEDERATED, *(arm for arm in shown if arm not in BASELINES)]
    return [*(Job(arm, cell) for arm in whole), *own, *(Job(arm, cell) for arm in scored)]


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
        if job.arm in RECORDERS:
            _record(folder, job.arm, work)
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


def _record(folder: Path, arm: str, work: StepWork) -> None:
    trained, evaluated = (open_centers(work.files, codes) for codes in (work.trained, work.evaluated))
    if found := RECORDERS[arm](At(work.run, work.step, work.start, work.base, trained, evaluated)):
        write_records(folder, work.step.name, found)


def write_records(folder: Path, step: str, found: Sequence[Observed], *, mode: str = "") -> None:
    """Leave the test patients' records of a step, as one mode shows them, in a job's folder."""
    write_json(folder / records_name(step, mode), [one.row() for one in found])


def tune_job(comparing: Comparing, job: Job) -> None:
    """A baseline's trials: every rate for a few passes, on the arm's own validation cases."""
    values: Values = {}
    for factor in comparing.run.compare.learning_rates:
        untuned = comparing.untuned_overrides(job.arm, job.cell)
        run = compose_run((*untuned, *trial_overrides(compose_run(untuned), factor)))
        states: dict[str, State] = {}
        for work in _steps(job, comparing, run):
            trained = _train(work, start_of(work, states))
            states[work.step.name] = trained.state
            values.setdefault(work.step.name, {})[f"{factor:g}"] = trained.value
    margin = comparing.run.compare.tuning_margin
    write_choice(comparing.choice_path(job.arm, job.cell, job.center), values, margin=margin)


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
    files = federated.center_files()
    for event in ledger.events("step_finished"):
        step = run.steps.get(event["step"])
        if step is None or step.rounds == 0:
            continue
        [started] = ledger.events("step_started", step=step.name)[:1]
        evaluated = [c for c in event["evaluated_at"] if job.center in (None, c)]
        trained = [c for c in started["centers"] if job.center in (None, c)]
        if job.arm == LEFT_OUT:
            trained = [c for c in started["centers"] if c != job.center]
        if evaluated and (trained or job.arm not in BASELINES):
            start = AdaptedModel(backbone, step, seed=run.seed).state()
            yield StepWork(run, step, start, base, trained, evaluated, files)


def _state(job: Job, comparing: Comparing, work: StepWork, earlier: dict[str, State]) -> State:
    step = work.step
    if job.arm in FEDERATIONS:
        folder = comparing.arm_folder(job.arm, job.cell)
        bank, [event] = AdapterBank(folder.bank), Ledger(folder.ledger).events("step_finished", step=step.name)[-1:]
        return state_in_use(bank, head=bank.head(event["lineage"]), own=event["key"])
    if job.arm == UNTRAINED:
        return start_of(work, earlier)
    path = comparing.records(job) / f"{step.name}.safetensors"
    if not path.exists():
        trained = _train(work, start_of(work, earlier))
        write_tensors(path, trained.state)
        cost = {"passes": len(trained.validation), "steps": trained.batches, "cases": trained.cases}
        course = {"kept": trained.best_pass, "validation": trained.validation}
        write_json(path.with_suffix(".train.json"), course | cost)
    return load_file(path)


def _best_round(job: Job, comparing: Comparing, step: Step) -> int:
    """Of a federated arm; 0 for the others, which have no rounds."""
    if job.arm not in FEDERATIONS:
        return 0
    [event] = Ledger(comparing.arm_folder(job.arm, job.cell).ledger).events("step_finished", step=step.name)[-1:]
    return event["kept_round"]


def start_of(work: StepWork, earlier: dict[str, State]) -> State:
    """As `server.learning.start.starting_state`: what fits of the step that it starts from, the rest from the seed."""
    return work.start | what_fits(earlier.get(work.step.starts_from or _last_writer(work, earlier), {}), work.start)


def _last_writer(work: StepWork, earlier: Mapping[str, State]) -> str:
    """The earlier step whose lineage this one goes on with; empty without one."""
    writers = [n for n in earlier if work.step.writes and work.run.steps[n].writes == work.step.writes]
    return writers[-1] if writers else ""


def _train(work: StepWork, start: State) -> Trained:
    center = pooled(open_centers(work.files, work.trained))
    return train_pooled(center, baseline_order(work.run, work.step, base=work.base, state=start))
