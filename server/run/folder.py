"""RunFolder: where a run keeps what it knows, and the names of its files."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from common.errors import FedgraftError, LedgerError, RoundFailed
from common.plugins import load

HANDOVER_S = 90.0  # a server that lost its SuperLink needs so long, at most, to notice


@dataclass(frozen=True)
class RunFolder:
    """``runs/<name>/``."""

    path: Path

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.yaml"

    @property
    def ledger(self) -> Path:
        """The hash-chained event log."""
        return self.path / "ledger.jsonl"

    @property
    def bank(self) -> Path:
        """The adapter bank."""
        return self.path / "bank"

    @property
    def centers(self) -> Path:
        """In simulation, one configuration file per center."""
        return self.path / "centers"

    def center_files(self) -> dict[str, Path]:
        """Of a simulation, each center's configuration file by its code."""
        return {path.stem: path for path in self.centers.glob("*.yaml")}

    @property
    def tensorboard(self) -> Path:
        """Scalars for TensorBoard."""
        return self.path / "tensorboard"

    @property
    def results(self) -> Path:
        """The machine-readable results."""
        return self.path / "results.json"

    @property
    def comparison(self) -> Path:
        """In simulation, what the report compares the run with: score rows and paired differences."""
        earlier = self.path / "beside.json"  # its name in runs from before it had this one
        return earlier if earlier.exists() else self.path / "comparison.json"

    def records(self, key: str) -> Path:
        """In simulation, the test patients' records under the adapter of a key."""
        return self.path / "records" / f"{key}.json"

    @property
    def report(self) -> Path:
        """The report for people."""
        return self.path / "report.html"

    def checkpoint(self, step: str, number: int) -> Path:
        """The aggregated state after a round."""
        return self.path / "checkpoints" / step / f"round-{number:04d}.safetensors"

    def checkpoints(self, step: str) -> list[Path]:
        """The states of a step that are still kept, in the order of rounds."""
        return sorted(
            path
            for path in (self.path / "checkpoints" / step).glob("round-*.safetensors")
            if not path.name.endswith(".memory.safetensors")
        )

    def start(self, step: str) -> Path:
        """The state that a step starts from, where its methods made it."""
        return self.path / "checkpoints" / step / "start.safetensors"

    def memory(self, step: str, number: int) -> Path:
        """What the aggregation rule and the link remember after a round."""
        return self.path / "checkpoints" / step / f"round-{number:04d}.memory.safetensors"

    def sums(self, step: str, question: str, center: str) -> Path:
        """One center's answer to one question of a Newton fit."""
        return self.path / "sums" / step / question / f"{center}.safetensors"

    def all_sums(self, step: str) -> list[Path]:
        """Every stored answer of a step."""
        return sorted((self.path / "sums" / step).glob("*/*.safetensors"))

    def evaluation(self, key: str) -> Path:
        """One center's sums for one state."""
        return self.path / "evaluations" / f"{key}.safetensors"


def read_config(folder: RunFolder) -> dict[str, Any]:
    """The run's resolved configuration. Raises LedgerError where there is none that can be read."""
    path = folder.config
    if not path.exists():
        raise LedgerError(f"{folder.path} is not a run folder: it has no config.yaml.")
    try:
        found: Any = OmegaConf.to_container(OmegaConf.create(path.read_text()))
    except (OmegaConfBaseException, YAMLError, UnicodeDecodeError) as error:
        raise LedgerError(f"{path} cannot be read ({_first_line(error)}); {_MEND}") from error
    if not isinstance(found, dict) or not {"backbone", "runtime", "seed", "steps"} <= set(found):
        raise LedgerError(f"{path} is empty or lacks a run's options; {_MEND}")
    return found


def load_plugins(folder: RunFolder) -> None:
    """Import the plugins that a run was made with: those of its configuration and, in a deployment, of server.yaml.

    Raises:
        ConfigError: one is not there any more, or cannot be imported.
    """
    named = read_config(folder).get("plugins") or [] if folder.config.exists() else []
    load(list(named), folder=Path.cwd())
    for place in folder.path.resolve().parents[1:2]:
        if (place / "server.yaml").exists():
            config: Any = OmegaConf.to_container(OmegaConf.load(place / "server.yaml"))
            load(list((config or {}).get("plugins") or []), folder=place)


_MEND = "restore it from a backup, or delete this one file and start the same command again, which writes it anew."


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def existing(path: Path) -> RunFolder:
    """A run folder with a ledger, its plugins loaded. Raises FedgraftError for anything else."""
    if not RunFolder(path).ledger.exists():
        raise FedgraftError(f"{path} is no run folder: it has no ledger.jsonl.")
    load_plugins(RunFolder(path))
    return RunFolder(path)


@contextmanager
def alone_in(folder: RunFolder, *, patience_s: float = HANDOVER_S) -> Iterator[None]:
    """Hold the run folder for this process: two servers that append to one ledger would break its chain.

    The lock goes with the process, however it ends. Raises RoundFailed when another one keeps it.
    """
    folder.path.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + patience_s
    with (folder.path / ".lock").open("ab") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if time.monotonic() > deadline:
                    raise RoundFailed(
                        f"Another process is at work in {folder.path}; wait for it, or give this run another name=…."
                    ) from error
                time.sleep(0.2)
        yield
