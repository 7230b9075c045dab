"""Vault: what must survive at a center between rounds, on its own disk; a client process may live for one message.

Each entry belongs to a run, a step and a round: two runs of one center never read each other's. A round reads the entry
of the last round whose update the server used (the order's ``since``), so an update that was lost, rejected or asked
for twice leaves no trace: a killed and resumed run finds what an undisturbed one finds. Nothing in the vault ever
leaves the center by itself.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file

from common.errors import FedgraftError
from common.files import write_tensors
from common.protocol.messages import Order, State

ROUND = re.compile(r"round-(\d+)\.safetensors")


class VaultError(FedgraftError):
    """An entry that is needed and not there, or not readable: the code travels, the path stays on site."""

    code = "vault"


class ReferenceMissing(VaultError):
    """The state that a difference refers to is not here: the server sends the whole state next time."""

    code = "reference"


class Vault:
    """One step's shelf in a center's vault."""

    def __init__(self, root: Path, order: Order):
        owner = order.run or f"{order.seed}\x1f{order.base}"  # a run that began before runs had an id
        logical = hashlib.sha256(f"{order.step.name}\x1f{owner}".encode()).hexdigest()[:16]
        self.path = root / "steps" / f"{_plain(order.step.name)}-{logical}"

    def load(self, name: str, *, since: int) -> State:
        """The entry of the latest round up to ``since``; empty where there is none (then the step is at its start).

        Raises VaultError when there should be one (``since`` > 0) but none is readable.
        """
        rounds = [number for number in self._rounds(name) if number <= since]
        if not rounds:
            return {}
        return _read(self._file(name, max(rounds)))

    def save(self, name: str, state: State, *, order: Order, keep_all: bool = False) -> None:
        """Write the entry of the order's round; earlier ones that no repetition can ask for again are dropped."""
        write_tensors(self._file(name, order.round), state)
        if keep_all:
            return
        known = [number for number in self._rounds(name) if number <= order.since]
        needed = {order.round, max(known, default=order.round)}
        for number in set(self._rounds(name)) - needed:
            self._file(name, number).unlink(missing_ok=True)

    def keep_reference(self, digest: str, state: State) -> None:
        """Keep a received state, and of earlier ones only the last."""
        folder = self.path / "reference"
        if not (folder / f"{digest}.safetensors").exists():
            write_tensors(folder / f"{digest}.safetensors", state)
        kept = sorted(folder.glob("*.safetensors"), key=lambda path: (path.stem == digest, path.stat().st_mtime_ns))
        for path in kept[:-2]:
            path.unlink(missing_ok=True)

    def reference(self, digest: str) -> State:
        """A kept state. Raises ReferenceMissing."""
        path = self.path / "reference" / f"{_plain(digest)}.safetensors"
        if not path.exists():
            raise ReferenceMissing(f"The vault has no state {digest[:12]}; the next message must carry it whole.")
        return _read(path)

    def _rounds(self, name: str) -> list[int]:
        found = (ROUND.fullmatch(path.name) for path in (self.path / name).glob("round-*.safetensors"))
        return sorted(int(match.group(1)) for match in found if match)

    def _file(self, name: str, number: int) -> Path:
        return self.path / name / f"round-{number:04d}.safetensors"


def _plain(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "_", text)


def _read(path: Path) -> State:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise VaultError(f"{path} cannot be read ({error}); restore it, or release the step's vault folder.") from error
