"""One curriculum over LocalGrid: the center files, the workers, and the server's own app."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from flwr.app import Context, RecordDict

from client.vault.group import recover
from common.config.load import to_json
from common.config.run import Run, Runtime
from common.errors import DataError
from common.runtime.machine import usable_cores
from common.runtime.pulse import under_way
from server.run.folder import RunFolder, alone_in
from simulations.virtual.centers import data_roots, write_centers
from simulations.virtual.local_grid import LocalGrid

if TYPE_CHECKING:
    from server.coordinator import Coordinator

JOURNAL = "sent.journal"  # of the records of what left, where all centers answer in this process


def federate(run: Run, folder: RunFolder, overrides: Sequence[str], *, only: Sequence[str] | None = None) -> None:
    """The curriculum over LocalGrid with the run's workers; ``only`` limits the centers that exist."""
    from server.app import app

    if folder.path.exists():
        with alone_in(folder, patience_s=10.0):
            pass  # whoever names a folder in use hears so before everything is loaded; the server's app holds it later
    under_way("reading the cohort")
    files, sizes = write_centers(run, folder, data_roots(run, progress=_progress))
    _check_named_centers(run, files)
    if only is not None:
        files = {code: path for code, path in files.items() if code in only}
    under_way("starting the centers")
    grid = _grid(run, folder, files, sizes)
    context = Context(
        run_id=1,
        node_id=1,
        node_config={},
        state=RecordDict(),
        run_config={"overrides": shlex.join(overrides), "run-dir": str(folder.path)},
    )
    try:
        with as_before():
            app(grid, context)
    finally:
        grid.close()


def federate_quietly(run: Run, folder: RunFolder, *, without: Collection[str] = ()) -> Coordinator:
    """A checked run's curriculum in this process, saying nothing, from where a stopped one was; who led it.

    Args:
        without: codes of centers that are not there.
    """
    from server.centers.federation import Federation
    from server.coordinator import Coordinator
    from server.curriculum import run_curriculum
    from server.run.narration import Narrator

    torch.set_num_threads(run.runtime.threads)
    files, _ = write_centers(run, folder, data_roots(run))
    grid = LocalGrid({code: path for code, path in files.items() if code not in without}, workers=0)
    leader = Coordinator(Federation(grid, patience_s=0.0), run, folder, Narrator(None, say=lambda line: None))
    try:
        run_curriculum(leader)
    finally:
        grid.close()
    return leader


@contextmanager
def as_before() -> Iterator[None]:
    """Threads and determinism, which a center that answers in this process sets as it needs them, are put back."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)


def _grid(run: Run, folder: RunFolder, files: dict[str, Path], sizes: dict[str, int]) -> LocalGrid:
    """With one worker, centers answer in this very process: nothing is serialised, records are flushed together."""
    workers, journal, frozen = worker_count(run.runtime), folder.path / JOURNAL, [to_json(run.backbone)]
    recover(journal)
    if not run.faults:
        here = workers == 1 and run.runtime.device == "cpu"  # what a GPU remembers goes with a worker
        return LocalGrid(
            files, workers=0 if here else workers, sizes=sizes, by_hand=here, journal=journal, frozen=frozen
        )
    from simulations.virtual.faults import FaultyGrid

    return FaultyGrid(files, workers=workers, sizes=sizes, faults=run.faults, seed=run.seed, frozen=frozen)


def _check_named_centers(run: Run, found: Collection[str]) -> None:
    """Every center that a step names has cases: a simulation, unlike a deployment, cannot wait for one to connect.

    A step that is never trained may name centers that are not here (a folder without the chest cohort): nothing is lost
    but its scores.
    """
    problems = []
    for name, step in run.steps.items():
        absent = sorted({*step.centers, *step.evaluate_at} - {"*"} - set(found))
        if absent and step.rounds == 0:
            print(f"Step '{name}' is only scored; {', '.join(absent)} has no case here and gets no score.", flush=True)
        elif absent:
            problems.append(
                f"Step '{name}' names {', '.join(absent)}, which has no case under {run.data.root}; there are cases of "
                f"{', '.join(sorted(found))}. Name those, or add the missing cases."
            )
    if problems:
        raise DataError(problems)


def worker_count(runtime: Runtime) -> int:
    """Configured workers, or one per core divided by the threads of each."""
    if runtime.workers > 0:
        return runtime.workers
    return max(1, usable_cores() // runtime.threads)


def _progress(done: int, of: int) -> None:
    under_way(f"drawing the phantom cohort, {done} of {of} cases")
    if done == of or done % 20 == 0:
        print(f"  phantom cohort: {done}/{of} cases", flush=True)
