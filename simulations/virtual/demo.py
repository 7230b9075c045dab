"""``make federation``: a coordinator and three hospitals as processes, two crashes, and the simulation's report.

Each hospital has its own folder of phantom patients, its own key and its own node; everything crosses TLS and nginx.
Half-way the coordinator and one hospital are killed and started again. The adapters' keys are then compared with those
of the same run over LocalGrid: equal keys mean equal bits.
"""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from common.errors import RoundFailed
from common.files import write_json
from common.store.ledger import Ledger
from server.deploy.folder import Deployment
from server.deploy.status import status, table
from server.run.folder import RunFolder
from simulations.phantom import make_cohort
from simulations.simulate import simulate
from simulations.virtual.loopback import Loopback, loopback

HOSPITALS = ("CHUM", "CHUP", "MDA")
STEPS = ("tumour_ct", "tumour_ctpet")
RUN_S = 1800.0


@dataclass
class Measured:
    """What a real federation costs beside training, on this machine."""

    rounds: int
    round_s: float  # median wall seconds of a round
    overhead_s: float  # of it, neither training nor validation: median
    up_mb: float  # a hospital's replies in a round: median
    down_mb: float  # and its orders
    start_s: float  # from `server start` to three connected hospitals
    recovery_s: float  # from the two kills to the next finished round
    equal: bool  # the same adapters as the simulation


def demonstrate(base: Path, *, say: Callable[[str], None] = print) -> Measured:
    """Run it in ``base`` and write ``federation.json`` there. Raises RoundFailed when the adapters differ."""
    shutil.rmtree(base, ignore_errors=True)
    base.mkdir(parents=True)
    make_cohort(Path("data/smoke"), scale=0.02, seed=11)
    roots = {code: own_folder(Path("data/smoke/hecktor"), base / f"{code}-data", code) for code in HOSPITALS}
    with loopback(base, roots) as fed:
        started = time.monotonic()
        fed.start_server()
        for code in HOSPITALS:
            fed.start_node(code, wait=False)
        for code in HOSPITALS:
            fed.wait(lambda code=code: "SuperNode ID" in fed.node_log(code), what=code, name=code)  # type: ignore[misc]
        start_s = time.monotonic() - started
        say(f"a coordinator and {len(HOSPITALS)} hospitals, connected in {start_s:.0f} s")
        fed.start_run(overrides("deployed"))
        after(fed, "round_finished", 1)
        show(fed)
        recovery_s = crash(fed, say)
        fed.finish_run(within_s=RUN_S)
        show(fed)
        folder, deployed = fed.run_folder("deployed"), fed.adapters("deployed")
        shutil.copytree(folder.path, base / "deployed")
    say("the same run over LocalGrid")
    simulated = adapters(simulate(overrides("simulated"), folder=base / "simulated"))
    found = measured(RunFolder(base / "deployed"), start_s, recovery_s, equal=deployed == simulated)
    write_json(base / "federation.json", asdict(found))
    if not found.equal:
        raise RoundFailed(f"The deployed run ended with {deployed}, the simulation with {simulated}.")
    return found


def overrides(name: str) -> list[str]:
    """The smoke curriculum at three hospitals."""
    named = f"[{','.join(HOSPITALS)}]"
    where = [f"steps.{step}.{key}={named}" for step in STEPS for key in ("centers", "evaluate_at")]
    return ["curriculum=smoke", f"name={name}", *where]


def own_folder(cohort: Path, out: Path, code: str) -> Path:
    """A hospital's own folder: its patients' files and its lines of the tables."""
    for file in sorted(cohort.rglob("*")):
        target = out / file.relative_to(cohort)
        if file.is_file() and file.name.startswith(f"{code}-"):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
        elif file.suffix == ".csv":
            target.parent.mkdir(parents=True, exist_ok=True)
            head, *lines = file.read_text().splitlines(keepends=True)
            target.write_text(head + "".join(line for line in lines if line.startswith(f"{code}-")))
    return out


def crash(fed: Loopback, say: Callable[[str], None]) -> float:
    """SIGKILL the coordinator and one hospital, start both again; seconds until the next round is finished."""
    before, killed = len(rounds(fed.run_folder("deployed"))), time.monotonic()
    fed.kill("server")
    fed.kill("MDA")
    say("killed: the coordinator with its ServerApp, and the node of MDA; both start again")
    fed.start_node("MDA", wait=False)
    fed.start_server()
    after(fed, "round_finished", before + 1)
    say(f"recovered {time.monotonic() - killed:.0f} s after the kill")
    return time.monotonic() - killed


def after(fed: Loopback, kind: str, count: int) -> None:
    """Wait for the run's ledger to have so many events of a kind."""
    folder = fed.run_folder("deployed")
    fed.wait(
        lambda: len(Ledger(folder.ledger).events(kind)) >= count, what=f"{count} {kind}", name="run", within_s=RUN_S
    )


def show(fed: Loopback) -> None:
    """The live status, as `python -m server status` prints it."""
    from rich.console import Console

    Console(width=100).print(table(status(Deployment.open(fed.coordinator))))


def rounds(folder: RunFolder) -> list[dict]:
    """The run's finished rounds."""
    return Ledger(folder.ledger).events("round_finished")


def adapters(folder: RunFolder) -> dict[str, str]:
    """Step -> key of its adapter."""
    return {event["step"]: event["key"] for event in Ledger(folder.ledger).events("step_finished")}


def measured(folder: RunFolder, start_s: float, recovery_s: float, *, equal: bool) -> Measured:
    """Medians over the run's rounds; overhead is a round's wall time less its slowest center's training."""
    events = rounds(folder)
    walls = [event["seconds"]["train"] + event["seconds"]["validate"] for event in events]
    ways = {
        way: statistics.median(row[way] / 1e6 for event in events for row in event["bytes"].values())
        for way in ("up", "down")
    }
    return Measured(
        rounds=len(events),
        round_s=round(statistics.median(walls), 2),
        overhead_s=round(
            statistics.median(wall - event["slowest_center_s"] for wall, event in zip(walls, events, strict=True)), 2
        ),
        up_mb=round(ways["up"], 3),
        down_mb=round(ways["down"], 3),
        start_s=round(start_s, 1),
        recovery_s=round(recovery_s, 1),
        equal=equal,
    )
