"""The same two apps under Flower's own simulation runtime (Ray): ``python -m simulations flower curriculum=smoke``.

``flwr run`` sends the repository's bundle to a SuperLink that lives for this run only: on a loopback port, in an empty
directory (code in a SuperLink's working directory would shadow the bundle inside Ray's actors) and with its own
``FLWR_HOME``. Everything that is started carries a mark in its environment, by which it is found and stopped again.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from common.config.load import compose_run
from common.config.run import Run
from common.errors import RoundFailed
from common.runtime.offline import SWITCHES
from common.runtime.processes import program, terminated_is_interrupted
from server.run.folder import RunFolder
from server.run.unfinished import unfinished
from simulations.simulate import simulate
from simulations.virtual.centers import data_roots, write_centers
from simulations.virtual.federate import worker_count
from simulations.virtual.own_data import settled

ROOT = Path(__file__).resolve().parents[2]
MARK = "FEDGRAFT_SESSION"
STARTUP_S = 90.0
STOP_S = 10.0
RAISED = re.compile(r"^(?:\w+\.)*[A-Z]\w+: .+$", re.MULTILINE)  # as a traceback ends; Flower's own lines begin in color
SHADOWS = ("PYTHONPATH", "RAY_ADDRESS", "FLWR_HOME")  # an outer setting must not reach what is started here


def simulate_with_flower(
    overrides: Sequence[str], *, folder: Path | None = None, say: Callable[[str], None] = print
) -> RunFolder:
    """Run or resume a curriculum under Flower and Ray; the same run folder as `simulations.simulate.simulate` makes.

    Without a ``name=…`` the run is called ``<curriculum>-flower``, beside LocalGrid's.
    """
    overrides = list(settled(overrides, say=say))
    if not any(override.startswith("name=") for override in overrides):
        overrides = [*overrides, f"name={compose_run(overrides).name}-flower"]
    return simulate(overrides, folder=folder, runtime=lambda *given: federate_with_flower(*given, say=say))


def federate_with_flower(
    run: Run, folder: RunFolder, overrides: Sequence[str], *, say: Callable[[str], None] = print
) -> None:
    """The curriculum over Flower's simulation runtime. Raises RoundFailed when it ends before the last step."""
    files, _ = write_centers(run, folder, data_roots(run))
    centers = {"FEDGRAFT_CENTERS": str(folder.centers.resolve()), "FEDGRAFT_HOME": str(ROOT / "common")}
    with superlink({**centers, "OMP_NUM_THREADS": str(run.runtime.threads)}) as link:
        config = {"overrides": shlex.join([*overrides, *_absolute(run)]), "run-dir": str(folder.path.resolve())}
        log = folder.path / "flower.log"
        link.run(config, federation=_federation(run, len(files)), log=log, say=say)
    if left := unfinished(run, folder):
        raise RoundFailed(
            f"Flower's run ended before step '{left[0]}' was finished: {_last_error(log)} "
            f"(all of it is in {log}). Start the same command again to continue after the last finished round."
        )


@dataclass
class Link:
    """A SuperLink of our own, for the length of one run."""

    port: int
    folder: Path
    environment: dict[str, str]
    process: subprocess.Popen[bytes]

    def run(self, config: dict[str, str], *, federation: str, log: Path, say: Callable[[str], None]) -> None:
        """``flwr run`` with the repository's bundle, to its end; what Flower says goes to ``log``, ours to ``say``."""
        (self.folder / "run.toml").write_text(
            "".join(f"{key} = {json.dumps(value)}\n" for key, value in config.items())
        )
        log.parent.mkdir(parents=True, exist_ok=True)
        command = [program("flwr"), "run", str(ROOT), "ours", "--stream"]
        command += ["--run-config", str(self.folder / "run.toml"), "--federation-config", federation]
        with (
            log.open("w") as record,
            subprocess.Popen(
                command,
                cwd=self.folder / "empty",
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            ) as client,
        ):
            assert client.stdout is not None
            for line in client.stdout:
                record.write(line)
                record.flush()
                if line.startswith(("[", " " * 10)):  # the narrator's lines
                    say(line.rstrip())


@contextmanager
def superlink(variables: dict[str, str]) -> Iterator[Link]:
    """A SuperLink in a neutral folder; on leaving, whatever it started is stopped and its folder removed.

    Args:
        variables: environment of everything that it starts.
    """
    folder = Path(tempfile.mkdtemp(prefix="fedgraft-", dir="/tmp" if Path("/tmp").is_dir() else None))  # Ray: short
    mark, port = uuid.uuid4().hex, _free_port()
    environment = _environment(folder, {**variables, MARK: mark})
    for name in ("empty", "flwr", "ray"):
        (folder / name).mkdir()
    (folder / "flwr" / "config.toml").write_text(
        f'[superlink]\ndefault = "ours"\n\n[superlink.ours]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
    )
    command = [program("flower-superlink"), "--insecure", "--simulation", "--isolation", "subprocess"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--disable-runtime-dependency-installation"]
    try:
        with (
            terminated_is_interrupted(),
            (folder / "superlink.log").open("wb") as log,
            subprocess.Popen(
                command,
                cwd=folder / "empty",
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            ) as process,
        ):
            try:
                link = Link(port, folder, environment, process)
                _wait_until_healthy(link)
                yield link
            finally:
                stop_all(mark)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def started_under(mark: str) -> list[psutil.Process]:
    """Processes of this machine whose environment carries the mark."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def stop_all(mark: str) -> None:
    """Ask every process under the mark to end, then make them. Raises RoundFailed if one survives both."""
    for signal_number in (signal.SIGTERM, signal.SIGKILL, signal.SIGKILL):
        processes = started_under(mark)
        if not processes:
            return
        for process in processes:
            try:
                process.send_signal(signal_number)
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(processes, timeout=STOP_S)
    if left := started_under(mark):
        raise RoundFailed(f"Processes of the Flower run could not be stopped: {[process.pid for process in left]}.")


def _federation(run: Run, centers: int) -> str:
    """Flower's own settings: one SuperNode per center, as many actors as the run has workers."""
    workers = min(worker_count(run.runtime), centers)
    settings: dict[str, float] = {
        "num-supernodes": centers,
        "client-resources-num-cpus": run.runtime.threads,
        "init-args-num-cpus": workers * run.runtime.threads,
    }
    if run.runtime.device == "cuda":
        settings |= {"client-resources-num-gpus": 1.0 / workers, "init-args-num-gpus": 1}
    return " ".join(f"{key}={value}" for key, value in settings.items())


def _absolute(run: Run) -> list[str]:
    """Overrides that make the run's own paths independent of the working directory."""
    paths = {"backbone.weights": run.backbone.weights, "backbone.text_folder": run.backbone.text_folder}
    own = [f"plugins=[{','.join(run.plugins)}]"] if run.plugins else []
    return own + [
        f"{key}={Path(path).resolve()}" for key, path in paths.items() if path and not Path(path).is_absolute()
    ]


def _environment(folder: Path, variables: dict[str, str]) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name not in SHADOWS}
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    own = {
        "PATH": programs,
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "FLWR_HOME": str(folder / "flwr"),
        "RAY_TMPDIR": str(folder / "ray"),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # Ray's name for: one machine, loopback only
    }
    return {**inherited, **SWITCHES, **own, **variables}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_healthy(link: Link) -> None:
    deadline = time.monotonic() + STARTUP_S
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while time.monotonic() < deadline and link.process.poll() is None:
        try:
            with direct.open(f"http://127.0.0.1:{link.port}/health", timeout=2.0):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    said = (link.folder / "superlink.log").read_text(errors="replace").strip().splitlines()
    raise RoundFailed(f"Flower's SuperLink did not start within {STARTUP_S:.0f} s: {said[-1] if said else 'silent'}")


def _last_error(log: Path) -> str:
    found = RAISED.findall(log.read_text(errors="replace"))
    return found[-1] if found else "it gave no reason"
