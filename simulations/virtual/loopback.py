"""A real federation on this machine: one coordinator and its hospitals as separate processes, over TLS with keys.

Everything goes through the commands that people type (`python -m server …`, `python -m client …`); every process is
started here and stopped by its id.
"""

from __future__ import annotations

import io
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from omegaconf import OmegaConf

import client.__main__
import server.__main__
from common.errors import FedgraftError
from common.files import write_bytes
from common.runtime.processes import Process, last_lines, start_process, stop_processes
from common.store.ledger import Ledger
from server.run.folder import RunFolder

STARTUP_S = 120.0


@dataclass
class Loopback:
    """A folder with a coordinator's folder, one folder per hospital, and what runs of them."""

    base: Path
    centers: dict[str, Path] = field(default_factory=dict)  # code -> center.yaml
    running: dict[str, Process] = field(default_factory=dict)  # "server", "run" or a center's code

    @property
    def coordinator(self) -> Path:
        """The coordinator's folder."""
        return self.base / "coordinator"

    def run_folder(self, name: str) -> RunFolder:
        """A run's folder at the coordinator."""
        return RunFolder(self.coordinator / "runs" / name)

    def log(self, name: str) -> Path:
        """What a command said."""
        return self.base / "logs" / f"{name}.log"

    def make_coordinator(self) -> None:
        """`server init`, on free ports."""
        ports = free_ports(3)
        names = ("--public-port", "--link-port", "--health-port")
        given = [word for pair in zip(names, map(str, ports), strict=True) for word in pair]
        command("server", "init", str(self.coordinator), *given)

    def make_hospital(self, code: str, root: Path, **settings: object) -> Path:
        """`client init` over a folder of patients; ``settings`` change keys of its center.yaml."""
        folder = self.base / code
        server = OmegaConf.load(self.coordinator / "server.yaml")
        given: dict[str, object] = {"code": code, "root": root, "server": f"localhost:{server.public_port}"}
        given |= {"server-certificate": self.coordinator / "ca.crt"}
        given |= {"cache": folder / "cache", "vault": folder / "vault", "minimum-cases": 1, "minimum-cell": 1}
        words = [word for name, value in given.items() for word in (f"--{name}", str(value))]
        folder.mkdir(parents=True, exist_ok=True)
        command("client", "init", "--yes", "--out", str(folder / "center.yaml"), *words)
        own: dict[str, object] = {"health": f"127.0.0.1:{free_ports(1)[0]}", "policy": {"parts": ["all"]}, **settings}
        changed = OmegaConf.merge(OmegaConf.load(folder / "center.yaml"), OmegaConf.create(own))
        write_bytes(folder / "center.yaml", OmegaConf.to_yaml(changed).encode())
        self.centers[code] = folder / "center.yaml"
        return self.centers[code]

    def enrol(self, code: str) -> None:
        """`server enrol` with the hospital's public key."""
        command("server", "enrol", str(self.coordinator), code, str(self.base / code / "keys" / f"{code}.pub"))

    def start_server(self) -> None:
        """`server start`, until hospitals can connect."""
        self._start("server", "server", "start", str(self.coordinator))
        self.wait(lambda: "ready" in self.log("server").read_text(), what="the coordinator", name="server")

    def start_node(self, code: str, *, wait: bool = True) -> None:
        """`client start`, until the coordinator has let the node in."""
        self._start(code, "client", "start", "--center", str(self.centers[code]))
        if wait:
            self.wait(lambda: "SuperNode ID" in self.node_log(code), what=f"the node of {code}", name=code)

    def node_log(self, code: str) -> str:
        """What Flower's SuperNode of a hospital said since its last start."""
        path = self.base / code / f".node-{code}" / "node.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def center_log(self, code: str) -> str:
        """The hospital's own log: its executor's and center's sentences."""
        path = self.base / code / f".node-{code}" / "center.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def start_run(self, overrides: Sequence[str]) -> None:
        """`server run`, without waiting for its end."""
        self._start("run", "server", "run", str(self.coordinator), *overrides)

    def finish_run(self, *, within_s: float) -> str:
        """What `server run` said, once it has ended well. Raises FedgraftError otherwise."""
        process = self.running["run"]
        try:
            process.wait(within_s)
        except subprocess.TimeoutExpired as error:
            raise FedgraftError(f"The run did not end within {within_s} s: {last_lines(self.log('run'))}") from error
        said = self.log("run").read_text()
        if process.returncode != 0:
            raise FedgraftError(f"The run ended with {process.returncode}: {said[-2000:]}")
        return said

    def processes(self, name: str, marks: str) -> list[psutil.Process]:
        """Living processes below a command whose command line has a word."""
        top = psutil.Process(self.running[name].pid)
        found = [process for process in top.children(recursive=True) if marks in " ".join(_cmdline(process))]
        return sorted(found, key=lambda process: process.pid)

    def kill(self, name: str) -> None:
        """SIGKILL a command and let the kernel end what it started."""
        process = self.running.pop(name)
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGKILL)
        process.wait()
        _, alive = psutil.wait_procs(children, timeout=10.0)
        for child in alive:
            child.kill()

    def stop(self, *names: str) -> None:
        """Stop commands as Ctrl-C would; all, nodes first, when none is named."""
        hospitals = sorted(set(self.running) - {"run", "server"})
        order = list(names) or ["run", *hospitals, "server"]
        stop_processes([self.running.pop(name) for name in order if name in self.running], grace_s=30.0)

    def wait(self, ready: Callable[[], bool], *, what: str, name: str, within_s: float = STARTUP_S) -> None:
        """Wait until something is so, at most for a while and only while the command lives."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            if ready():
                return
            if name in self.running and self.running[name].poll() is not None:
                raise FedgraftError(f"{what} ended: {last_lines(self.log(name))}")
            time.sleep(0.2)
        raise FedgraftError(f"Waited {within_s:.0f} s for {what}: {last_lines(self.log(name))}")

    def adapters(self, name: str) -> dict[str, str]:
        """Step -> key of its adapter: equal keys mean equal bits."""
        events = Ledger(self.run_folder(name).ledger).events("step_finished")
        return {event["step"]: event["key"] for event in events}

    def _start(self, name: str, *words: str) -> None:
        self.log(name).parent.mkdir(parents=True, exist_ok=True)
        self.log(name).unlink(missing_ok=True)
        self.running[name] = start_process(
            [sys.executable, "-m", words[0], *words[1:]], log=self.log(name), home=self.base
        )


@contextmanager
def loopback(base: Path, roots: Mapping[str, Path], *, enrol: Sequence[str] | None = None) -> Iterator[Loopback]:
    """A coordinator and hospitals, made but not started; on leaving, whatever runs is stopped.

    Args:
        roots: code -> folder with that hospital's patients.
        enrol: codes to enrol; default: all.
    """
    made = Loopback(base)
    made.make_coordinator()
    for code, root in roots.items():
        made.make_hospital(code, root)
        if enrol is None or code in enrol:
            made.enrol(code)
    try:
        yield made
    finally:
        made.stop()


def command(package: str, *words: str) -> str:
    """Run one of the short commands in this process; what it printed. Raises FedgraftError with its complaint."""
    said, complained = io.StringIO(), io.StringIO()
    main = {"client": client.__main__.main, "server": server.__main__.main}[package]
    with redirect_stdout(said), redirect_stderr(complained):
        code = main(list(words))
    if code != 0:
        raise FedgraftError(complained.getvalue().strip())
    return said.getvalue()


def free_ports(count: int) -> list[int]:
    """Loopback ports that nobody uses now."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def _cmdline(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
