"""Cells: every fold and seed of a study, each in one process that federates, trains the baselines and records patients.

The arms of a cell share prepared cases and frozen features in memory. Finished pieces are kept: a stopped study
continues.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from common.config.load import compose_run
from common.config.rules import check_run
from common.config.run import Run
from common.config.step import Step
from common.errors import ConfigError, UnknownName
from common.metrics import Estimate, ranked_pairs
from common.store.ledger import Ledger
from server.report.reading.traffic import bytes_of_rounds
from server.run.unfinished import unfinished
from simulations.comparison.arms import is_done, run_job, trained_centers
from simulations.comparison.comparing import Cell, Comparing, Job, composed
from simulations.comparison.names import CENTRALIZED, EXACT, FEDERATED, LOCAL, RANDOM, UNTRAINED
from simulations.comparison.paired import Patient, difference_of, patients_of, value_of_patients
from simulations.virtual.centers import data_roots
from simulations.virtual.federate import federate_quietly, worker_count
from simulations.virtual.pool import side_by_side

Extra = Callable[[Comparing, Cell, str], None]
ARMS = (FEDERATED, CENTRALIZED, LOCAL, EXACT, RANDOM, UNTRAINED)
FEDERATIONS = (FEDERATED, RANDOM)


def prepared(run: Run, overrides: Sequence[str]) -> Comparing:
    """A study's configuration and folder. Raises ConfigError where a step breaks a rule or an arm is unknown."""
    check_run(run)
    arms = run.study.arms
    unknown = [arm for arm in arms if arm not in ARMS]
    if unknown:
        raise UnknownName("arm", unknown[0], ARMS, where="study.arms")
    if FEDERATED not in arms:
        raise ConfigError("study.arms lacks 'federated', whose centers and splits the other arms follow; add it.")
    name = run.name if run.name != run.curriculum else f"study-{run.study.kind}"
    return Comparing(run, Path(run.out) / name, tuple(overrides))


def run_cells(comparing: Comparing, say: Callable[[str], None], *, extra: Extra | None = None) -> None:
    """Run every cell that is not finished, as many at a time as there are workers."""
    data_roots(comparing.run)  # a phantom cohort is made once, before anyone reads it
    workers = min(worker_count(comparing.run.runtime), len(comparing.cells))
    say(f"{len(comparing.cells)} cells ({', '.join(comparing.run.study.arms)}), {workers} at a time")

    def finished(number: int, cell: Cell) -> None:
        say(f"  {number}/{len(comparing.cells)} {cell.name}")

    work = partial(run_cell, comparing.overrides, comparing.folder, extra)
    side_by_side(work, comparing.cells, workers=workers, finished=finished)


def run_cell(overrides: Sequence[str], folder: Path, extra: Extra | None, cell: Cell) -> None:
    """One fold and seed: federate, train the baselines, and record every test patient under every arm.

    Args:
        extra: what a study records beside the steps, called with the comparison, the cell and each federated arm.
    """
    comparing = composed(overrides, folder)
    arms = comparing.run.study.arms
    for arm in (arm for arm in FEDERATIONS if arm in arms):
        federate_here(comparing, arm, cell)
    for arm in arms:
        for center in trained_centers(comparing, cell) if arm == LOCAL else [None]:
            job = Job(arm, cell, center)
            if not is_done(comparing, job):
                run_job(comparing, job)
        if extra is not None and arm in FEDERATIONS:
            extra(comparing, cell, arm)


def federate_here(comparing: Comparing, arm: str, cell: Cell) -> None:
    """One federation over LocalGrid in this process, silently; what is finished is skipped."""
    run = compose_run(comparing.arm_overrides(arm, cell))
    folder = comparing.arm_folder(arm, cell)
    if unfinished(run, folder):
        federate_quietly(run, folder)


def bytes_up(comparing: Comparing, step: str) -> float | None:
    """Mean bytes of one center's training reply, over centers, rounds and cells of the federated arm."""
    ledgers = (Ledger(comparing.arm_folder(FEDERATED, cell).ledger) for cell in comparing.cells)
    found = [sent for ledger in ledgers for each in bytes_of_rounds(ledger.events(), step, "up") for sent in each]
    return sum(found) / len(found) if found else None


def score(comparing: Comparing, arm: str, step: Step, metric: str, *, mode: str = "") -> Estimate:
    """A metric of an arm's step over all folds' test patients, the mean of seeds, with its interval over patients."""
    return _resampled(comparing, step, patients_of(comparing, arm, step.name, mode=mode), None, metric)


def plain_score(
    comparing: Comparing, arm: str, step: Step, metric: str, *, mode: str = "", center: str | None = None
) -> float | None:
    """`score` without its interval, of one center's patients where it is named."""
    patients = patients_of(comparing, arm, step.name, mode=mode)
    return value_of_patients(step, [p for p in patients if center in (None, p.center)], metric)


def difference(comparing: Comparing, a: tuple[str, Step, str], b: tuple[str, Step, str], metric: str) -> Estimate:
    """The paired difference a - b of two (arm, step, mode) over the patients that both scored."""
    patients = [patients_of(comparing, arm, step.name, mode=mode) for arm, step, mode in (a, b)]
    sides = [{(p.center, p.patient, p.fold): p for p in found} for found in patients]
    keys = sorted(sides[0].keys() & sides[1].keys())
    left, right = ([side[key] for key in keys] for side in sides)
    return _resampled(comparing, a[1], left, right, metric)


def comparable_pairs(comparing: Comparing, step: Step) -> int:
    """Pairs of test patients, within a center and fold, whose order of relapse is known: what a C-index counts."""
    groups: dict[tuple[str, int], list[Patient]] = {}
    for patient in patients_of(comparing, FEDERATED, step.name):
        groups.setdefault((patient.center, patient.fold), []).append(patient)
    found = 0
    for members in groups.values():
        columns = (np.array([p.records[0][name] for p in members], np.float64) for name in ("time", "event", "risk"))
        found += int(ranked_pairs(*columns)[2].sum())
    return found


def _resampled(
    comparing: Comparing, step: Step, a: Sequence[Patient], b: Sequence[Patient] | None, metric: str
) -> Estimate:
    return difference_of(step, a, b, metric, draws=comparing.run.compare.draws)


def arms_left_out(run: Run) -> list[str]:
    """One sentence on the comparisons that the default leaves out for time; none where both run."""
    missing = [arm for arm in (CENTRALIZED, LOCAL) if arm not in run.study.arms]
    told = f"Not run: {' and '.join(missing)} training; study.arms=[{','.join([*run.study.arms, *missing])}] adds it."
    return [told] if missing else []


def data_named(run: Run) -> str:
    """The data as every table names them."""
    if run.data.kind == "phantom":
        return f"synthetic phantom cohort (scale {run.data.scale:g}, seed {run.data.seed})"
    return f"real images under {run.data.root}"


def repeats(run: Run) -> str:
    """Folds and seeds in words."""
    return f"{len(run.compare.folds)} of {run.data.split.folds} folds, seeds {', '.join(map(str, run.compare.seeds))}"
