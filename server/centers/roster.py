"""Roster: who may be asked, who may train, and why the others not; read from the ledger alone.

Enrolment, joining, rounds, scoring and the door to the Grid all ask here, so that a center that has left the run, or is
suspended, is so everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from common.store.ledger import Ledger
from server.centers.quarantine import suspended

SUSPENDED, WITHDRAWN = "suspended", "withdrawn"


def withdrawn(ledger: Ledger) -> list[str]:
    """Everyone who has left the run, in the order of leaving: nothing is ever sent to them again."""
    return [event["center"] for event in ledger.events("center_withdrawn")]


def rounds_of(ledger: Ledger, step: str) -> list[dict[str, Any]]:
    """The step's finished rounds since it last failed: those are repeated."""
    rounds: list[dict[str, Any]] = []
    for event in ledger.events(step=step):
        if event["kind"] == "step_failed":
            rounds = []
        elif event["kind"] == "round_finished":
            rounds.append(event)
    return rounds


def _used(event: dict[str, Any], center: str) -> bool:
    return not event["void"] and center in event["train"]


class Roster:
    """The standing of every center in one run."""

    def __init__(self, ledger: Ledger):
        self.ledger = ledger

    @property
    def gone(self) -> frozenset[str]:
        """Centers that have left the run."""
        return frozenset(withdrawn(self.ledger))

    def kept_from_training(self, *, limit: int) -> dict[str, str]:
        """Center -> why it may not train now: it has left, or has as many strikes as suspend it.

        Args:
            limit: strikes; 0 suspends nobody.
        """
        return dict.fromkeys(suspended(self.ledger, limit=limit), SUSPENDED) | dict.fromkeys(self.gone, WITHDRAWN)

    def askable(self, centers: Iterable[str]) -> list[str]:
        """Those of the centers that may be asked anything, sorted."""
        return sorted(set(centers) - self.gone)

    @property
    def met(self) -> frozenset[str]:
        """Centers of which a round of this run has used an update: their vaults know the run."""
        used = (event for event in self.ledger.events("round_finished") if not event["void"])
        return frozenset(center for event in used for center in event["train"])

    @property
    def continues(self) -> str:
        """Id of the run that this one continues; empty where it continues none."""
        return str(self._continued().get("id", ""))

    def earlier(self, step: str) -> dict[str, int]:
        """Center -> the last round that counts of that step in the run that this one continues."""
        return dict(self._continued().get("used", {}).get(step, {}))

    def _continued(self) -> dict[str, Any]:
        started = self.ledger.events("run_started")
        return dict(started[0].get("continues", {})) if started else {}

    def last_used(self, center: str, step: str, *, upto: int) -> int:
        """The last round of a step, up to one, that used an update of a center; 0 where none did."""
        return max(
            (e["round"] for e in rounds_of(self.ledger, step) if e["round"] <= upto and _used(e, center)), default=0
        )

    def contributed(self, step: str, *, upto: int) -> list[str]:
        """Centers of which some round of a step, up to one, used an update, in the order of joining."""
        used = [e for e in rounds_of(self.ledger, step) if e["round"] <= upto and not e["void"]]
        return list(dict.fromkeys(center for event in used for center in event["train"]))

    def registered(self, center: str, subset: str) -> float | None:
        """The most cases of a split that a center has ever said it has; None where it never said."""
        counts: list[dict[str, Any]] = [
            event["counts"].get(center, {}) for event in self.ledger.events("step_started") if event.get("counts")
        ]
        counts += [e["counts"] for e in self.ledger.events("center_joined") if e["center"] == center]
        known = [float(own[subset]) for own in counts if subset in own]
        return max(known, default=None)
