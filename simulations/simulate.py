"""One federation on this machine, from a command line to a report: the same two Flower apps over LocalGrid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from common.config.rules import check_run
from common.config.run import Run
from common.runtime.machine import check_device
from common.runtime.pulse import under_way
from common.store.ledger import Ledger
from server.run.composed import composed_run
from server.run.finish import verify_in_fresh_process, write_outputs
from server.run.folder import RunFolder
from simulations.virtual.federate import federate
from simulations.virtual.own_data import settled
from simulations.virtual.planning import check_cases


def simulate(
    overrides: Sequence[str],
    *,
    folder: Path | None = None,
    runtime: Callable[[Run, RunFolder, Sequence[str]], None] | None = None,
) -> RunFolder:
    """Run or resume a curriculum; the run folder with ledger, bank, results and report.

    Args:
        runtime: what carries the messages; default: `federate`, over LocalGrid.
    """
    overrides = settled(overrides)
    run = composed_run(overrides)
    check_run(run)
    check_device(run.runtime.device)
    check_cases(run)
    place = RunFolder(folder or Path(run.out) / run.name)
    (runtime or federate)(run, place, overrides)
    if not Ledger(place.ledger).events("verified"):
        under_way("checking every finished step in a fresh process")
        verify_in_fresh_process(place.path)
    under_way("writing results and report")
    from simulations.comparison.overlays import overlays_of
    from simulations.comparison.reference_arms import write_comparison

    write_comparison(run, place)
    write_outputs(place.path, overlays=overlays_of(run, place))
    return place
