"""The server's Flower app: it composes the run that its configuration names and runs the curriculum."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run or resume the curriculum in ``run-dir``; ``overrides`` is the command line that composes it.

    ``nodes`` names a file with the node id that each enrolled center's key has; a simulation has none.
    """
    from common.config.load import plugins_named
    from common.config.rules import check_run
    from common.errors import ConfigError
    from common.plugins import load_inherited, not_loaded
    from common.store.ledger import Ledger
    from server.centers.federation import Federation
    from server.centers.packed_grid import PackedGrid
    from server.coordinator import Coordinator
    from server.curriculum import run_curriculum
    from server.run.composed import composed_run
    from server.run.folder import RunFolder, alone_in
    from server.run.length import rounds_of_steps
    from server.run.narration import Narrator

    overrides = shlex.split(str(context.run_config.get("overrides", "")))
    load_inherited()
    if unknown := not_loaded(plugins_named(overrides)):
        raise ConfigError(
            f"The run's configuration names plugins that this process was not started with: {', '.join(unknown)}. A "
            "message never names code: write them into server.yaml, or start the simulation with them."
        )
    run = composed_run(overrides)
    check_run(run)
    if run.faults and not getattr(grid, "makes_faults", False):
        raise ConfigError(
            "The run has faults, which happen over LocalGrid only; start it with python -m simulations run."
        )
    folder = RunFolder(Path(str(context.run_config.get("run-dir") or Path(run.out) / run.name)))
    nodes = str(context.run_config.get("nodes", ""))
    enrolled = (lambda: json.loads(Path(nodes).read_text())) if nodes else getattr(grid, "enrolled", None)
    if nodes:  # over a network, not a simulation's runtime
        grid = PackedGrid(grid)
    with alone_in(folder):
        narrator = Narrator(folder.tensorboard, rounds=rounds_of_steps(run.steps, Ledger(folder.ledger)))
        run_curriculum(Coordinator(Federation(grid, enrolled=enrolled), run, folder, narrator))
