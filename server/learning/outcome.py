"""Outcome: which replies a phase of a round could use, which not and why, and what the rule says about its work."""

from __future__ import annotations

from dataclasses import dataclass, field

from common.protocol.messages import Reply, Sums
from common.tasks import merge_sums
from server.centers.quarantine import GUARDED
from server.centers.screening import Rejection

LEFT = "left"  # why a center is not asked in a round: it is not connected any more


@dataclass
class Outcome:
    """What a phase of a round gave, apart from the arrays."""

    accepted: dict[str, Reply] = field(default_factory=dict)
    rejected: dict[str, str] = field(default_factory=dict)  # center -> code
    told: dict[str, str] = field(default_factory=dict)  # of the rejected, what was measured
    duplicates: list[str] = field(default_factory=list)
    fingerprints: dict[str, str] = field(default_factory=dict)  # of the accepted updates
    start_fingerprint: str = ""
    report: dict[str, object] = field(default_factory=dict)  # what the rule says about its work
    secure: dict[str, object] = field(default_factory=dict)  # of a secure sum: what it says, over how many
    void: str = ""  # why the round changes nothing; empty: it does

    @property
    def sums(self) -> Sums:
        """Sums over the accepted centers, in the order of their codes."""
        return merge_sums([reply.sums for _, reply in sorted(self.accepted.items())])

    @property
    def quarantined(self) -> dict[str, dict[str, str]]:
        """What the guards stopped: center -> code and what was measured."""
        return {
            center: {"code": code, "told": self.told.get(center, "")}
            for center, code in sorted(self.rejected.items())
            if code in GUARDED
        }

    def reject(self, center: str, reason: Rejection) -> None:
        """Leave a center out of this phase."""
        self.accepted.pop(center, None)
        self.fingerprints.pop(center, None)
        self.rejected[center] = reason.code
        if reason.told:
            self.told[center] = reason.told
