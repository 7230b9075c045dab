"""Questions of an exact fit and the centers' answers, which are on disk: a killed server continues.

An answer is found by its question and its center, so a resumed search asks only for what it has not heard. What a
center says at one point is held against what it said at the others of the same fit: its sums are of one function.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from common.backbones.base import tensors_digest
from common.exact.bounds import impossible_sums
from common.exact.columns import Scaling
from common.exact.noised import beyond, noised_objective
from common.exact.objectives import GRADIENT, LOSS
from common.exact.room import Told, no_convex_function, out_of_proportion, room_of, told_at
from common.exact.step import BETA, MEAN, SCALE, declared_in_order, objective_of, rows_per_case
from common.privacy.plan import plan_of
from common.protocol.messages import Order, Reply, State, Sums
from common.protocol.wire import COUNTS_OF
from common.store.ledger import Ledger
from common.store.sums import read_sums, write_sums
from server.centers.federation import Exchange, Federation
from server.centers.quarantine import record_rejected
from server.centers.roster import Roster
from server.centers.screening import Expected, Rejection, screen
from server.masking.asking import FIT_GUARDS_OFF
from server.run.folder import RunFolder
from server.run.narration import Narrator

CASES = "cases"  # beside stored sums: how many patients they are over


@dataclass(frozen=True)
class Question:
    """What the centers are asked: moments (round 0), sums at the parameters of ``known``, or histograms of the scores
    that a fitted ``state`` gives.

    Args:
        own: of features that are harmonized, each center's standardisation in the place of that of ``known``.
    """

    round: int
    known: Sums = field(default_factory=dict)
    subset: str = ""
    state: State = field(default_factory=dict)
    own: Mapping[str, Scaling] = field(default_factory=dict)

    @property
    def fit(self) -> bytes:
        """What is the same for all points of one fit: the standardisation. Empty for other questions."""
        return b"".join(np.ascontiguousarray(self.known[n], np.float64).tobytes() for n in (MEAN, SCALE) if self.known)

    @property
    def key(self) -> str:
        """What decides an answer, for each center: the round, and the point at which sums are asked."""
        digest = hashlib.sha256(str(self.round).encode())
        for name in sorted(self.known):
            digest.update(name.encode() + np.ascontiguousarray(self.known[name], np.float64).tobytes())
        for center, scaling in sorted(self.own.items()):
            digest.update(center.encode() + scaling.mean.tobytes() + scaling.scale.tobytes())
        if self.state:
            digest.update(self.subset.encode() + tensors_digest(self.state).encode())
        return f"{self.round:04d}-{digest.hexdigest()[:16]}"

    def known_at(self, center: str) -> Sums:
        """``known`` as a center gets it."""
        own = self.own.get(center)
        return self.known if own is None else {**self.known, MEAN: own.mean, SCALE: own.scale}

    def order(self, order: Order, center: str = "") -> Order:
        """The step's order as this question, to a center where each is asked its own."""
        asked = replace(order, round=self.round, known=self.known_at(center), subset=self.subset)
        return replace(asked, state=self.state) if self.state else asked


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
        self._told: dict[tuple[bytes, str], dict[str, Told]] = {}  # by fit and center, then by question

    def standing(self, centers: Sequence[str]) -> list[str]:
        """Over whom a fit begins."""
        return sorted(centers)

    def told_by(self, centers: Sequence[str]) -> list[str]:
        """Whose each answer of `ask` is."""
        return sorted(centers)

    def ask(self, question: Question, centers: Sequence[str]) -> list[Sums]:
        """Every center's answer, in the order of their codes. Raises LostCenters."""
        paths = {center: self.folder.sums(self.order.step.name, question.key, center) for center in centers}
        found = {center: read_sums(path) for center, path in paths.items()}
        missing = [center for center, sums in found.items() if sums is None]
        if missing:
            self._fetch(question, missing)
            found |= {center: read_sums(paths[center]) for center in missing}
        for center, sums in found.items():
            if sums is not None and LOSS in sums:
                own = self._told.setdefault((question.fit, center), {})
                own[question.key] = told_at(question.known[BETA], sums)
        return [{name: s[name] for name in s if name != CASES} for s in found.values() if s is not None]

    def forget(self, centers: Sequence[str]) -> None:
        """Drop what the fit no longer needs: all but the Gram sums that a withdrawal would subtract."""
        keeps = objective_of(self.order.step) is None and self.order.step.federation.keep_sums
        wanted = {self.folder.sums(self.order.step.name, Question(0).key, c) for c in centers} if keeps else set()
        for path in self.folder.all_sums(self.order.step.name):
            if path not in wanted:
                path.unlink()

    def forget_center(self, center: str) -> None:
        """Drop a lost center's answers: when the step begins again it is asked anew, from its moments."""
        for path in self.folder.all_sums(self.order.step.name):
            if path.stem == center:
                path.unlink()
        self._told = {of: own for of, own in self._told.items() if of[1] != center}

    def _fetch(self, question: Question, centers: Sequence[str]) -> None:
        order = question.order(self.order)
        shapes = declared_in_order(order)
        exchange, lost = self._exchange(question, order, centers), {}
        for center, reply in exchange.replies.items():
            rejection = self._changed(center, question, reply)
            rejection = rejection or screen(reply, self._expected(center, question, shapes))
            if rejection is None:
                kept = {**reply.sums, CASES: np.array(float(reply.counts.get(CASES, 0)))}
                write_sums(self.folder.sums(order.step.name, question.key, center), kept)
            else:
                lost[center] = f"{rejection.code}{f' ({rejection.told})' if rejection.code == 'impossible' else ''}"
                record_rejected(self.ledger, center, rejection, step=order.step.name, action="sums")
        self._record(question, exchange, lost)
        for center in lost if self.order.step.privacy is None else ():  # noised answers are given once
            self.forget_center(center)
        if lost:
            raise LostCenters(lost)

    def _exchange(self, question: Question, order: Order, centers: Sequence[str]) -> Exchange:
        if not question.own:
            return self.federation.ask(centers, order, "query.sums")
        return self.federation.ask_each({c: question.order(self.order, c) for c in centers}, "query.sums")

    def _record(
        self, question: Question, exchange: Exchange, lost: dict[str, str], *, secure_sum: Sequence[str] = ()
    ) -> None:
        answered = sorted(set(exchange.replies) - set(lost))
        event = {
            "step": self.order.step.name, "round": question.round, "centers": answered,
            "bytes": exchange.bytes, "seconds": float(f"{exchange.seconds:.4f}"), "failed": lost,
            **({"secure_sum": {"of": sorted(secure_sum), "guards_off": FIT_GUARDS_OFF}} if secure_sum else {}),
        }  # fmt: skip
        self.ledger.append("newton_round", event)
        what = question.subset or ("moments" if question.round == 0 else f"Newton round {question.round}")
        self.narrator.say(f"          {what}: sums of {len(answered)} centers  {exchange.seconds:.1f} s")

    def _expected(self, center: str, question: Question, shapes: Mapping[str, tuple[int, ...]]) -> Expected:
        """What a center can answer: declared sums, all of them, that its cases and its own moments allow."""
        step, known = self.order.step, question.known_at(center)
        if step.privacy is not None:
            return self._noised(center, question, shapes)
        moments, objective = self._moments(center) if known else None, objective_of(step)
        earlier = list(self._told.get((question.fit, center), {}).values())

        def wrong(sums: Sums, cases: float) -> str:
            rows = cases * rows_per_case(step)
            found = impossible_sums(sums, cases=rows)
            if found or moments is None or objective is None or not math.isfinite(cases):
                return found
            beta, columns = known[BETA], sums[GRADIENT].shape[1]
            room = room_of(
                moments, objective=objective, mean=known[MEAN], scale=known[SCALE], cases=rows, columns=columns
            )
            return out_of_proportion(sums, beta, room) or no_convex_function(earlier, told_at(beta, sums), room)

        most = self.roster.registered(center, "train")
        needed, counts = frozenset(shapes), COUNTS_OF["sums"]
        return Expected(shapes, needed=needed, empty=False, cases=most, impossible=wrong, counts=counts)

    def _noised(self, center: str, question: Question, shapes: Mapping[str, tuple[int, ...]]) -> Expected:
        """Noise makes sums that no patients could, but no longer ones than the step's public numbers say."""
        objective, plan = noised_objective(self.order.step), plan_of(self.order.step, center)
        patients = max(self.roster.registered(center, "train") or 0.0, float(plan.cohort))

        def wrong(sums: Sums, cases: float) -> str:
            return beyond(objective, plan, sums, round=question.round, patients=patients)

        return Expected(shapes, needed=frozenset(shapes), empty=False, impossible=wrong, counts=COUNTS_OF["sums"])

    def _changed(self, center: str, question: Question, reply: Reply) -> Rejection | None:
        """Patients came or went since the moments: no lie, and still no answer to this fit."""
        before = (self._moments(center) or {}).get(CASES) if question.known and reply.is_usable else None
        now = reply.counts.get(CASES, 0)
        if before is None or float(before) == now:
            return None
        return Rejection("changed", f"it answers over {now} cases, and over {float(before):g} before")

    def _moments(self, center: str) -> Sums | None:
        return read_sums(self.folder.sums(self.order.step.name, Question(0).key, center))
