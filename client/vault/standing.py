"""Standing: what a center's vault knows of its own part in a run, and what its hospital has said is lost.

One sealed file a run. The coordinator says in its orders that it has used updates of this center (``met``); a vault
that knows nothing of the run is then lost, or another one, and with it the list of erased patients and the split:
nothing is done before somebody at the hospital has looked. A vault that has seen a later round than the coordinator's
is how a ledger that was rolled back is noticed.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

from common.errors import FedgraftError
from common.protocol.messages import Order
from common.store.sealed import DamagedFile, read_sealed, write_sealed

FOLDER = "runs"
LOST = "lost.json"  # what was asked for and is not there, until the hospital says what to do
PLAIN = re.compile(r"[0-9a-f]{1,64}")
log = logging.getLogger("fedgraft.center")

REMEDY = "restore the vault from a backup, or move the file aside and accept the loss with `python -m client afresh`."


class VaultError(FedgraftError):
    """An entry that is needed and not there, or not readable: the code travels, the path stays on site."""

    code = "vault"


class VaultBehind(VaultError):
    """The coordinator asks for a round that this vault has left behind, and what it needs is gone."""

    code = "vault.ahead"


class Standing:
    """One center's part in one run."""

    def __init__(self, root: Path, order: Order):
        self.root, self.order = root, order
        self.path = root / FOLDER / f"{order.run}.json" if PLAIN.fullmatch(order.run) else None
        self._known = self._read()

    def check(self) -> None:
        """Raises VaultError where the coordinator has used updates of this center and the vault knows of none."""
        if self.path is None or not self.order.met or self._known is not None:
            return
        self.note_loss(self.order.since)
        raise VaultError(
            f"The coordinator has used updates of this center in run {self.order.run[:12]}, and the vault {self.root} "
            "knows nothing of that run: it was lost, or is another folder, and with it the split, the list of erased "
            "patients and what methods remember. Restore it from a backup; if there is none, erase the erased patients "
            "again and accept the loss with `python -m client afresh`."
        )

    @property
    def latest(self) -> int:
        """The last round of the step, in this attempt at it, that was trained here; 0 before."""
        row = self._step()
        return int(row.get("round", 0)) if row.get("attempt", 0) == self.order.attempt else 0

    @property
    def given_up(self) -> int:
        """The hospital has said that the step's entries up to this round are lost; -1: nothing."""
        return int(self._step().get("given_up", -1))

    @property
    def gave_up_continuing(self) -> bool:
        """Whether the hospital has said that what another run left for this step is lost."""
        return self.given_up >= 0

    @property
    def ahead(self) -> int:
        """The later round that this vault has seen, where the order trains an earlier one of this attempt; else 0."""
        trains = self.order.round > 0 and not self.order.subset
        return self.latest if trains and self.latest > self.order.round else 0

    @property
    def afresh(self) -> bool:
        """Whether this order's work goes on from nothing where there should be something, as the hospital said."""
        since = self.order.since or self.order.earlier
        return since > 0 and self.order.since <= self.given_up

    def trained(self) -> None:
        """The order's round was trained here. Written before its update leaves."""
        if self.path is None:
            return
        row = {**self._step(), "attempt": self.order.attempt, "round": self.order.round}
        known = self._known or {}
        self._known = {**known, "steps": {**known.get("steps", {}), self.order.step.name: row}}
        write_sealed(self.path, self._known)

    def note_loss(self, since: int) -> None:
        """Leave a note of what is missing, for `python -m client afresh`; a disk that takes none stops nothing."""
        noted = losses(self.root)
        row = {"run": self.order.run, "step": self.order.step.name, "since": since}
        if row in noted or self.path is None:
            return
        try:
            write_sealed(self.root / LOST, [*noted, row])
        except OSError:
            return

    def _step(self) -> dict[str, Any]:
        found: dict[str, Any] = (self._known or {}).get("steps", {}).get(self.order.step.name, {})
        return found

    def _read(self) -> dict[str, Any] | None:
        return None if self.path is None or not self.path.exists() else _sealed(self.path)


def note_trained(root: Path, order: Order) -> dict[str, int]:
    """The vault's note that the round was trained, and what the server must know of the vault beside it."""
    standing = Standing(root, order)
    told = {"afresh": int(standing.afresh), "ahead": standing.ahead}
    if standing.ahead:
        log.warning("step=%s round=%s was trained before, up to round %s: the coordinator's ledger was rolled back",
                    order.step.name, order.round, standing.ahead)  # fmt: skip
    standing.trained()
    return {name: number for name, number in told.items() if number}


def losses(root: Path) -> list[dict[str, Any]]:
    """What orders asked for and the vault lacks: run, step and round, oldest first."""
    return list(_sealed(root / LOST)) if (root / LOST).exists() else []


def give_up(root: Path) -> list[dict[str, Any]]:
    """The hospital accepts every noted loss: the steps go on from nothing. Returns what was given up."""
    noted = losses(root)
    for row in noted:
        path = root / FOLDER / f"{row['run']}.json"
        known: dict[str, Any] = _sealed(path) if path.exists() else {}
        steps = known.get("steps", {})
        before = steps.get(row["step"], {})
        given = {**before, "given_up": max(int(before.get("given_up", -1)), int(row["since"]))}
        write_sealed(path, {**known, "steps": {**steps, row["step"]: given}})
    (root / LOST).unlink(missing_ok=True)
    return noted


def _sealed(path: Path) -> Any:
    try:
        return read_sealed(path, remedy=REMEDY)
    except DamagedFile as error:
        raise VaultError(str(error)) from error
