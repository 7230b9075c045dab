"""Questions of an exact fit and the centers' answers, which are on disk: a killed server continues.

An answer is found by its question and its center, so a resumed search asks only for what it has not heard.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from common.backbones.base import tensors_digest
from common.exact.bounds import impossible_sums, out_of_proportion
from common.exact.step import MEAN, SCALE, declared_in_order, objective_of, rows_per_case
from common.protocol.messages import Order, State, Sums
from common.store.ledger import Ledger
from common.store.sums import read_sums, write_sums
from server.centers.federation import Exchange, Federation
from server.centers.quarantine import record_rejected
from server.centers.roster import Roster
from server.centers.screening import Expected, screen
from server.run.folder import RunFolder
from server.run.narration import Narrator


@dataclass(frozen=True)
class Question:
    """What the centers are asked: moments (round 0), sums at the parameters of ``known``, or histograms of the scores
    that a fitted ``state`` gives."""

    round: int
    known: Sums = field(default_factory=dict)
    subset: str = ""
    state: State = field(default_factory=dict)

    @property
    def key(self) -> str:
        """What decides an answer, for each center: the round, and the point at which sums are asked."""
        digest = hashlib.sha256(str(self.round).encode())
        for name in sorted(self.known):
            digest.update(name.encode() + np.ascontiguousarray(self.known[name], np.float64).tobytes())
        if self.state:
            digest.update(self.subset.encode() + tensors_digest(self.state).encode())
        return f"{self.round:04d}-{digest.hexdigest()[:16]}"

    def order(self, order: Order) -> Order:
        """The step's order as this question."""
        asked = replace(order, round=self.round, known=self.known)
        return replace(asked, subset=self.subset, state=self.state) if self.state else asked


class LostCenters(Exception):
    """Centers that did not answer a question; the fit goes on without them."""

    def __init__(self, reasons: dict[str, str]):
        self.reasons = reasons
        super().__init__(", ".join(reasons))


class Asking:
    """One step's questions to the centers behind a federation."""

    def __init__(self, federation: Federation, order: Order, *, folder: RunFolder, ledger: Ledger, narrator: Narrator):
        self.federation, self.order = federation, order
        self.folder, self.ledger, self.narrator = folder, ledger, narrator
        self.roster = Roster(ledger)

    def ask(self, question: Question, centers: Sequence[str]) -> list[Sums]:
        """Every center's answer, in the order of their codes. Raises LostCenters."""
        paths = {center: self.folder.sums(self.order.step.name, question.key, center) for center in centers}
        found = {center: read_sums(path) for center, path in paths.items()}
        missing = [center for center, sums in found.items() if sums is None]
        if missing:
            self._fetch(question, missing)
            found |= {center: read_sums(paths[center]) for center in missing}
        return [sums for sums in found.values() if sums is not None]

    def forget(self, centers: Sequence[str]) -> None:
        """Drop what the fit no longer needs: all but the Gram sums that a withdrawal would subtract."""
        keeps = objective_of(self.order.step) is None and self.order.step.federation.keep_sums
        wanted = {self.folder.sums(self.order.step.name, Question(0).key, c) for c in centers} if keeps else set()
        for path in self.folder.all_sums(self.order.step.name):
            if path not in wanted:
                path.unlink()

    def _fetch(self, question: Question, centers: Sequence[str]) -> None:
        order = question.order(self.order)
        shapes = declared_in_order(order)
        exchange, lost = self.federation.ask(centers, order, "query.sums"), {}
        for center, reply in exchange.replies.items():
            rejection = screen(reply, self._expected(center, question, shapes))
            if rejection is None:
                write_sums(self.folder.sums(order.step.name, question.key, center), reply.sums)
            else:
                lost[center] = f"{rejection.code}{f' ({rejection.told})' if rejection.code == 'impossible' else ''}"
                record_rejected(self.ledger, center, rejection, step=order.step.name, action="sums")
        self._record(question, exchange, lost)
        if lost:
            raise LostCenters(lost)

    def _record(self, question: Question, exchange: Exchange, lost: dict[str, str]) -> None:
        answered = sorted(set(exchange.replies) - set(lost))
        event = {
            "step": self.order.step.name, "round": question.round, "centers": answered,
            "bytes": exchange.bytes, "seconds": float(f"{exchange.seconds:.4f}"), "failed": lost,
        }  # fmt: skip
        self.ledger.append("newton_round", event)
        what = question.subset or ("moments" if question.round == 0 else f"Newton round {question.round}")
        self.narrator.say(f"          {what}: sums of {len(answered)} centers  {exchange.seconds:.1f} s")

    def _expected(self, center: str, question: Question, shapes: Mapping[str, tuple[int, ...]]) -> Expected:
        """What a center can answer: declared sums, all of them, that its cases and its own moments allow."""
        step, known = self.order.step, question.known
        moments = read_sums(self.folder.sums(step.name, Question(0).key, center)) if known else None

        def wrong(sums: Sums, cases: float) -> str:
            rows = cases * rows_per_case(step)
            found = impossible_sums(sums, cases=rows)
            if found or moments is None or not math.isfinite(cases):
                return found
            sets = getattr(objective_of(step), "bins", 1)
            return out_of_proportion(sums, moments, scale=known[SCALE], mean=known[MEAN], cases=rows, sets=sets)

        most = self.roster.registered(center, "train")
        return Expected(shapes, needed=frozenset(shapes), empty=False, cases=most, impossible=wrong)
