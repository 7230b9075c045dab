"""Vault: what must survive at a center between rounds, on its own disk; a client process may live for one message.

Each entry belongs to a run, a step and a round: two runs of one center never read each other's, but where a run says
that it continues another. A round reads the entry of the last round whose update the server used (the order's
``since``), so an update that was lost, rejected or asked for twice leaves no trace: a killed and resumed run finds what
an undisturbed one finds. An entry that should be there and is not is an error, never an empty one. Nothing in the vault
ever leaves the center by itself.
"""

from __future__ import annotations

import hashlib
import logging
import re
from pathlib import Path

from safetensors import SafetensorError, safe_open

from client.vault.standing import Standing, VaultBehind, VaultError
from common.backbones.base import tensors_digest
from common.files import write_bytes, write_tensors
from common.protocol.messages import Order, State

ROUND = re.compile(r"round-(\d+)\.safetensors")
DIGEST = "sha256"  # in an entry's metadata; entries of releases before it have none

log = logging.getLogger("fedgraft.center")


class ReferenceMissing(VaultError):
    """The state that a difference refers to is not here: the server sends the whole state next time."""

    code = "reference"


class Vault:
    """One step's shelf in a center's vault."""

    def __init__(self, root: Path, order: Order):
        self.root, self.order = root, order
        self.path = self.shelf(order.step.name)

    def shelf(self, name: str) -> Path:
        """The run's folder of a step, or of what several of its steps share."""
        return _shelf(self.root, name, self.order.run or f"{self.order.seed}\x1f{self.order.base}")

    def load(self, name: str, *, since: int) -> State:
        """The entry of round ``since``, the last one whose update the server used. Empty at a step's start (0), unless
        the run continues another, and where the hospital has said that the entry is lost.

        Raises:
            VaultBehind: a later round than the order's has been here since: the coordinator's ledger was rolled back.
            VaultError: the entry is missing or damaged.
        """
        if since == 0:
            return self._continued(name)
        path = self._file(name, since)
        if path.exists():
            return _read(path)
        standing = Standing(self.root, self.order)
        if since <= standing.given_up:
            log.warning(
                "step=%s round=%s %s of round %s is lost; this center goes on without it, as its hospital said",
                self.order.step.name, self.order.round, name, since,
            )  # fmt: skip
            return {}
        if standing.ahead:
            raise VaultBehind(
                f"The coordinator goes on from round {since} of step '{self.order.step.name}', and this vault has seen "
                f"round {standing.latest} already: the run's ledger was rolled back. The coordinator restores it."
            )
        standing.note_loss(since)
        raise VaultError(
            f"{path} is missing: the coordinator has used this center's update of round {since} of step "
            f"'{self.order.step.name}'. Restore the vault from a backup, or accept the loss with "
            "`python -m client afresh`."
        )

    def save(self, name: str, state: State, *, order: Order) -> None:
        """Write the entry of the order's round; earlier ones that nobody can ask for again are dropped.

        Asked for can be that of the last used round, and that of the round which is the best so far.
        """
        write_tensors(self._file(name, order.round), state, {DIGEST: tensors_digest(state)})
        for number in set(self._rounds(name)) - {order.round, order.since, order.best}:
            self._file(name, number).unlink(missing_ok=True)

    def latest(self, name: str) -> tuple[int, State] | None:
        """The only entry of a shelf that is replaced as a whole, with its round; None where there is none."""
        rounds = self._rounds(name)
        return (rounds[-1], _read(self._file(name, rounds[-1]))) if rounds else None

    def replace(self, name: str, state: State, *, order: Order) -> None:
        """Write the entry of the order's round in the place of every other."""
        write_tensors(self._file(name, order.round), state, {DIGEST: tensors_digest(state)})
        for number in set(self._rounds(name)) - {order.round}:
            self._file(name, number).unlink(missing_ok=True)

    def note(self, name: str, text: str) -> str:
        """What was noted under this name first, for as long as the step lasts: the text itself the first time."""
        path = self.path / f"{name}.txt"
        if not path.exists():
            write_bytes(path, text.encode())
        return path.read_text()

    def keep_reference(self, digest: str, state: State) -> None:
        """Keep a received state, and of earlier ones only the last."""
        folder = self.path / "reference"
        if not (folder / f"{digest}.safetensors").exists():
            write_tensors(folder / f"{digest}.safetensors", state, {DIGEST: digest})
        kept = sorted(folder.glob("*.safetensors"), key=lambda path: (path.stem == digest, path.stat().st_mtime_ns))
        for path in kept[:-2]:
            path.unlink(missing_ok=True)

    def reference(self, digest: str) -> State:
        """A kept state. Raises ReferenceMissing, also for a damaged one, which is dropped."""
        path = self.path / "reference" / f"{_plain(digest)}.safetensors"
        if not path.exists():
            raise ReferenceMissing(f"The vault has no state {digest[:12]}; the next message must carry it whole.")
        try:
            return _read(path)
        except VaultError as error:
            path.unlink(missing_ok=True)
            raise ReferenceMissing(f"{error} It was dropped; the next message carries it whole.") from error

    def _continued(self, name: str) -> State:
        """The entry that the run which this one continues left for the step; empty where it left none."""
        order = self.order
        if not (order.continues and order.earlier):
            return {}
        path = _shelf(self.root, order.step.name, order.continues) / name / _entry(order.earlier)
        if path.exists():
            log.info(
                "step=%s %s of run %s, round %s, is read: run %s continues it",
                order.step.name, name, order.continues[:12], order.earlier, order.run[:12],
            )  # fmt: skip
            return _read(path)
        if Standing(self.root, order).gave_up_continuing:
            return {}
        Standing(self.root, order).note_loss(0)
        raise VaultError(
            f"{path} is missing: step '{order.step.name}' continues run {order.continues[:12]}, which used this "
            f"center's update of round {order.earlier}. Restore the vault from a backup, or accept the loss with "
            "`python -m client afresh`."
        )

    def _rounds(self, name: str) -> list[int]:
        found = (ROUND.fullmatch(path.name) for path in (self.path / name).glob("round-*.safetensors"))
        return sorted(int(match.group(1)) for match in found if match)

    def _file(self, name: str, number: int) -> Path:
        return self.path / name / _entry(number)


def _shelf(root: Path, step: str, owner: str) -> Path:
    logical = hashlib.sha256(f"{step}\x1f{owner}".encode()).hexdigest()[:16]
    return root / "steps" / f"{_plain(step)}-{logical}"


def _entry(number: int) -> str:
    return f"round-{number:04d}.safetensors"


def _plain(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "_", text)[:80]


def _read(path: Path) -> State:
    remedy = "restore the vault from a backup, or delete this file and accept the loss with `python -m client afresh`."
    try:
        with safe_open(path, "pt") as file:
            known = (file.metadata() or {}).get(DIGEST)
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (OSError, SafetensorError) as error:
        raise VaultError(f"{path} cannot be read ({error}); {remedy}") from error
    if known not in (None, tensors_digest(state)):
        raise VaultError(f"{path} does not have the hash that it was written with; {remedy}")
    return state
