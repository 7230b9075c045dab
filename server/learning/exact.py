"""NewtonFit: a step solved from sums, question by question; answers are on disk, so that a killed server continues.

The search is a pure function of the answers (`common.exact.fit`): a resumed run finds the stored ones by their question
and asks for the rest. A center that cannot answer leaves the fit, which begins again from the moments of those that
remain, as if it had never taken part; below the quorum the step fails and can be repeated.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from common.backbones.base import tensors_digest
from common.errors import RoundFailed
from common.exact.bounds import impossible_sums, out_of_proportion
from common.exact.columns import Layout, LinearModel, add, scaling_from
from common.exact.objectives import Objective
from common.exact.ridge import ridge_from_sums
from common.exact.search import advance, begin, model_of
from common.exact.step import (
    BETA,
    MEAN,
    SCALE,
    declared_in_order,
    exact_part,
    objective_of,
    rows_per_case,
    state_of,
    voxels_of,
)
from common.exact.voxels import ALL, MISSED, THRESHOLDS, TRUE, best_thresholds
from common.protocol.messages import Order, State, Sums
from common.store.ledger import Ledger
from common.store.sums import read_sums, write_sums
from server.centers.federation import Exchange, Federation
from server.centers.quarantine import record_rejected
from server.centers.roster import Roster
from server.centers.screening import Expected, screen
from server.run.folder import RunFolder
from server.run.narration import Narrator

log = logging.getLogger("fedgraft.server")


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


class NewtonFit:
    """One step's fit over the centers behind a federation."""

    def __init__(
        self,
        federation: Federation,
        order: Order,
        layout: Layout,
        *,
        folder: RunFolder,
        ledger: Ledger,
        narrator: Narrator,
    ):
        self.federation, self.order, self.layout = federation, order, layout
        self.folder, self.ledger, self.narrator = folder, ledger, narrator
        self.roster = Roster(ledger)

    def run(self, centers: Sequence[str]) -> tuple[State, int]:
        """The fitted state and the number of questions. Raises RoundFailed below the quorum."""
        step, remaining = self.order.step, sorted(centers)
        needed = max(1, math.ceil(step.federation.quorum * len(remaining) - 1e-9))
        while True:
            try:
                state, questions = self._fit(remaining)
            except LostCenters as lost:
                remaining = [center for center in remaining if center not in lost.reasons]
                reasons = ", ".join(f"{center}: {reason}" for center, reason in sorted(lost.reasons.items()))
                if len(remaining) < needed:
                    raise RoundFailed(
                        f"Step '{step.name}' is fitted from sums of at least {needed} centers; {len(remaining)} are "
                        f"left ({reasons}). The reasons are in the centers' own logs; start the same command again."
                    ) from lost
                self.ledger.append("newton_lost", {"step": step.name, "centers": lost.reasons})
                self.narrator.say(f"          goes on without {reasons}")
                continue
            self._forget(remaining)
            return state, questions

    def _fit(self, centers: Sequence[str]) -> tuple[State, int]:
        """The fitted state of the part, and how many questions it took."""
        step = self.order.step
        part, objective = exact_part(step)[0], objective_of(step)
        first = add(self._ask(Question(0), centers))
        if objective is None:
            return state_of(ridge_from_sums(self.layout, first, penalty=step.federation.penalty), part), 1
        model = self._search(objective, centers, first)
        if voxels_of(step) is None:
            return state_of(model, part), model.rounds
        scores = add(self._ask(Question(model.rounds, subset=THRESHOLDS, state=state_of(model, part)), centers))
        thresholds = best_thresholds(scores[TRUE], scores[ALL], missed=scores[MISSED])
        self.ledger.append("thresholds_chosen", {"step": step.name, "scores": thresholds.tolist()})
        return state_of(replace(model, bias=model.bias - thresholds), part), model.rounds + 1

    def _search(self, objective: Objective, centers: Sequence[str], moments: Sums) -> LinearModel:
        step, scaling = self.order.step, scaling_from(moments)
        columns = len(self.layout.names)
        weights = step.federation.penalty * objective.penalised(columns)
        search = begin(objective.shape(columns))
        while not search.done and search.rounds < step.rounds:
            known = {MEAN: scaling.mean, SCALE: scaling.scale, BETA: search.asked}
            search = advance(search, add(self._ask(Question(search.rounds + 1, known), centers)), penalty=weights)
        self.ledger.append(
            "newton_settled",
            {"step": step.name, "settled": search.done, "rounds": search.rounds, "loss": search.loss.tolist()},
        )
        if not search.done:
            raise RoundFailed(
                f"Step '{step.name}' has not settled after {search.rounds} questions to {', '.join(centers)}: nothing "
                "is committed, for a fit that is not exact must not be called so. Give the step more rounds or a larger"
                " federation.penalty, in a new run."
            )
        return model_of(objective, self.layout, scaling, search)

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

    def _ask(self, question: Question, centers: Sequence[str]) -> list[Sums]:
        """Every center's answer, in the order of their codes. Raises LostCenters."""
        paths = {center: self.folder.sums(self.order.step.name, question.key, center) for center in centers}
        found = {center: read_sums(path) for center, path in paths.items()}
        missing = [center for center, sums in found.items() if sums is None]
        if missing:
            self._fetch(question, missing)
            found |= {center: read_sums(paths[center]) for center in missing}
        return [sums for sums in found.values() if sums is not None]

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

    def _forget(self, centers: Sequence[str]) -> None:
        """Drop what the fit no longer needs: all but the Gram sums that a withdrawal would subtract."""
        keeps = objective_of(self.order.step) is None and self.order.step.federation.keep_sums
        wanted = {self.folder.sums(self.order.step.name, Question(0).key, c) for c in centers} if keeps else set()
        for path in self.folder.all_sums(self.order.step.name):
            if path not in wanted:
                path.unlink()
