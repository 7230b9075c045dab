"""AdapterStrategy: one Flower Strategy for every step; it configures messages and aggregates screened replies.

Everything that a rule sees is in the order of the centers' codes, and a center's second reply changes nothing, so the
result has the same bits for any reply order, worker count or transport.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from torch import Tensor

from common.adapters.lowrank import cut_to_own_rank, padded
from common.backbones.base import tensors_digest
from common.config.options import NONE
from common.config.privacy import cohort_of
from common.data.modality_sets import validation_mode
from common.errors import TooFewUpdates, WireError
from common.protocol.arrays import Form, form_of, pack_state, unpack_state
from common.protocol.compression import applied, decode, form
from common.protocol.declaration import extra_form, extra_marks, keeps_state, sent_back
from common.protocol.handed import HandedOrder
from common.protocol.messages import Order, Reply, State
from common.protocol.weights import weight_of
from common.protocol.wire import COUNTS_OF, FIT_SUMS, declared_sums
from common.tasks.base import Task
from server.aggregation.types import Setting, Update
from server.centers.downlink import Link
from server.centers.federation import packed
from server.centers.screening import (
    Expected,
    Rejection,
    expected_of_task,
    fingerprint,
    inflated,
    missing_in_update,
    outliers,
    replayed,
    screen,
    weighed_cases,
)
from server.learning.core import aggregated, quorum
from server.learning.norms import extra_norms, part_norms
from server.learning.outcome import Outcome
from server.learning.replies import Check, screened
from server.methods import settled

log = logging.getLogger("fedgraft.server")
Seen = tuple[str, Tensor, int]  # a tensor by name, and how often it was written to


class AdapterStrategy(Strategy):
    """Sends the adapter state to the step's centers and aggregates what comes back and passes the guards."""

    def __init__(
        self,
        order: Order,
        *,
        nodes: Mapping[str, int],
        cases: Mapping[str, int],
        task: Task,
        validation: Mapping[str, int] | None = None,
        seeded: Iterable[str] = (),
        brought: State | None = None,
        base_weights: Mapping[str, Tensor] | None = None,
    ):
        """Args:
        nodes: center -> node, of every center of the step.
        cases: center -> training cases registered at enrolment: a reply cannot claim more.
        task: the step's; its sums are screened by the bounds that it declares.
        validation: the same of validation cases; None: scores are not compared with a count.
        seeded: tensors that centers make from the seed.
        brought: what each training order brings for the step's methods, see `server.methods.brought`.
        base_weights: frozen weights of the DoRA parts' layers, which their exact rule needs.
        """
        self.order = order
        self.nodes = dict(nodes)
        self.cases = dict(cases)
        self.validation = None if validation is None else dict(validation)
        shapes, scored = {**FIT_SUMS, **task.sum_shapes}, declared_sums(task, curves=False)
        self.scores = expected_of_task(task, scored, cases=None, needed=set(scored) - {"fit.batches"})
        self.trained = expected_of_task(task, shapes, cases=None, action="train")
        self.outcome = Outcome()
        self.base_weights = dict(base_weights or {})
        self.memory: State = {}  # of the aggregation rule, between rounds
        self.link = Link(order.step.federation.compression, list(seeded))
        self.brought = dict(brought or {})
        self.resting: dict[str, str] = {}  # center -> why it is not asked this round: suspended, left
        self.suspended: set[str] = set()  # of the step's centers, also those that could not enrol for it
        self.used: dict[str, list[int]] = {}  # center -> rounds in which its update was used
        self.best = 0  # the best round so far
        self.earlier: dict[str, int] = {}  # center -> its last round that counts in the run that this one continues
        self.met: frozenset[str] = frozenset()  # centers of which any step of the run has used an update
        self.asked: dict[str, str] = {}  # center -> id of the order that it was sent last
        self._told: tuple[State | None, tuple, Any] = (None, (), None)  # the last declaration, and of what it is
        self._digested: tuple[list[Seen], str] = ([], tensors_digest({}))  # the last state and its digest
        self.seen: dict[str, str] = {}  # fingerprint of a used update -> that of its start

    # ------------------------------------------------------------------------------------------------------ the roster

    def admit(self, center: str, *, node: int, cases: int, validation: int) -> None:
        """A center joins, or comes back under another node."""
        self.nodes[center], self.cases[center] = node, cases
        if self.validation is not None:
            self.validation[center] = validation
        self.link.forget(center)

    @property
    def quorum(self) -> int:
        """Updates that a round needs: the share of all the step's centers, suspended or gone ones too."""
        return quorum(self.order.step.federation.quorum, len(self.nodes))

    # -------------------------------------------------------------------------------------------------------- training

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """One training order per center."""
        return packed(self.training_orders(server_round, unpack_state(arrays)))

    def training_orders(self, server_round: int, state: State) -> list[Message]:
        """`configure_train` for a state that is at hand: it need not be packed to be unpacked again."""
        return self.messages("train", self.training_order(server_round, state))

    def training_order(self, server_round: int, state: State) -> Order:
        """What centers are asked in a round of training, from a state."""
        self.order = replace(self.order, round=server_round, state=state)
        return replace(self.order, subset="", extra=self._sent_extra(server_round))

    def _sent_extra(self, server_round: int) -> State:
        """What centers need beside the state: SCAFFOLD's common control variate, in float32, and what methods bring."""
        wanted = extra_form({n: self.order.state[n] for n in self.expected(server_round)}, self.order.step)
        return {name: self.memory[name].float() for name in wanted if name in self.memory} | self.brought

    def expected(self, server_round: int) -> frozenset[str]:
        """Names of the tensors that centers train in a round and send back."""
        return sent_back(self.order.state, self.order.step, round=server_round)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The new state, or None when the round is void and the model stays as it was."""
        state = self.aggregate(server_round, replies)
        return (None if state is None else pack_state(state)), None

    def aggregate(self, server_round: int, replies: Iterable[Message]) -> State | None:
        """`aggregate_train` without packing."""
        start = self.order.state
        expected = {n: start[n] for n in self.expected(server_round)}
        self.outcome = self._screened(
            replies, lambda reply: self._check_update(reply, expected), lambda center: self._form(center, expected)
        )
        self._acknowledge()
        own = self.outcome.start_fingerprint = fingerprint(expected)
        self._check_replays(own)
        self._check_norms(start)
        used = self.outcome.accepted
        try:
            new = self._aggregated(start, server_round)
        except TooFewUpdates as error:
            self.outcome.void = str(error)
            log.warning("round=%s void: %s", server_round, error)
            return None
        self.seen |= dict.fromkeys(self.outcome.fingerprints.values(), own)
        for center in used:
            self.used.setdefault(center, []).append(server_round)
        self.met |= used.keys()
        return self.link.advance(start, new)

    def _aggregated(self, start: State, server_round: int) -> State:
        spec = self.order.step.federation
        updates = [
            Update(c, r.state, weight_of(spec, weighed_cases(r, registered=self.registered(c))), r.extra)
            for c, r in self.outcome.accepted.items()
        ]
        return self._one_state(updates, start, server_round, needed=self.quorum)

    def aggregate_sum(self, updates: list[Update], start: State, server_round: int) -> State | None:
        """The new state from a secure sum: one update for each part, with the mean of its centers and their weight.

        None where fewer centers than the quorum are in it.
        """
        used = self.outcome.accepted
        if len(used) < self.quorum:
            self.outcome.void = f"{len(used)} of {self.quorum} needed updates can be used."
            return None
        new = self._one_state(updates, start, server_round, needed=1)
        told = {name: value for name, value in self.outcome.report.items() if not name.endswith(".missed")}
        self.outcome.report = told  # what averaging factors costs takes every update to say
        for center in used:
            self.used.setdefault(center, []).append(server_round)
        self.met |= used.keys()
        return new

    def _one_state(self, updates: list[Update], start: State, server_round: int, *, needed: int) -> State:
        step = self.order.step
        spec, stopped = step.federation, {*self.outcome.quarantined, *self.suspended}
        total = sum(weight_of(spec, cases) for cases in map(self.registered, self.cases))
        setting = Setting(
            spec, step.adapter.parts, server_round, total_weight=total, base=self.base_weights, stopped=len(stopped)
        )
        done = aggregated(updates, start, self.memory, setting, needed=needed)
        self.memory = done.memory
        state = settled(step, start, done.state, self.brought)
        self.outcome.report = {**done.report, **({"notes": done.notes} if done.notes else {})}
        return state

    def registered(self, center: str) -> int:
        """Training cases that a center has, as far as its updates may claim: a public bound of them under privacy."""
        privacy = self.order.step.privacy
        return self.cases.get(center, 0) if privacy is None else cohort_of(privacy, center)

    def _declared(self, center: str, whole: State) -> tuple[State, State, State]:
        """What a center trains of the whole, what of it travels as an update, and what in addition.

        The last answer is kept: it is the same for every center that has no rank of its own.
        """
        ranks = tuple(getattr(part, "ranks", {}).get(center) for part in self.order.step.adapter.parts.values())
        if self._told[0] is not whole or self._told[1] != ranks:
            self._told = whole, ranks, self._declared_by(center, whole)
        return self._told[2]

    def _declared_by(self, center: str, whole: State) -> tuple[State, State, State]:
        compression = self.order.step.federation.compression
        expected = cut_to_own_rank(whole, self.order.step.adapter.parts, center)
        declared = expected if compression.kind == NONE else form(expected, compression)
        return expected, declared, extra_form(expected, self.order.step)

    def _form(self, center: str, whole: State) -> Form:
        _, declared, extra = self._declared(center, whole)
        return form_of(declared, extra, self.trained.shapes)

    def _check_update(self, reply: Reply, whole: State) -> Rejection | None:
        compression = self.order.step.federation.compression
        expected, declared, extra = self._declared(reply.center, whole)
        found = screen(reply, replace(self.trained, state=declared, extra=extra))
        if found:
            return found
        beside = {mark + name for mark in extra_marks(self.order.step) for name in reply.state}
        if extra and set(reply.extra) != beside:
            return Rejection("incomplete", "what comes beside its update is not of its update")
        missing = missing_in_update(reply, state_like=declared, noised=self.order.step.privacy is not None)
        if missing:
            return Rejection(missing)
        if compression.kind != NONE:
            try:
                sent = {name: expected[name] for name in expected if name in reply.state}
                reply.state = applied(sent, decode(reply.state, sent, compression))
            except WireError as error:
                return Rejection("undeclared", str(error))
        reply.state = padded(reply.state, whole)
        return inflated(reply, registered=self.registered(reply.center))

    def _check_replays(self, own: str) -> None:
        for center, reply in list(self.outcome.accepted.items()):
            self.outcome.fingerprints[center] = fingerprint(reply.state)
            if replayed(self.outcome.fingerprints[center], start=own, seen=self.seen):
                self.outcome.reject(center, Rejection("replayed", "the same update was used in an earlier round"))

    def _check_norms(self, start: State) -> None:
        parts, accepted = self.order.step.adapter.parts, self.outcome.accepted
        norms = part_norms({center: reply.state for center, reply in accepted.items()}, start, parts)
        norms = {center: found | extra_norms(accepted[center].extra) for center, found in norms.items()}
        for center, reason in outliers(norms, self.order.step.federation.guards).items():
            self.outcome.reject(center, reason)

    # ------------------------------------------------------------------------------------------------------ validation

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """One validation order per center."""
        return packed(self.validation_orders(server_round, unpack_state(arrays)))

    def validation_orders(self, server_round: int, state: State) -> list[Message]:
        """`configure_evaluate` for a state that is at hand."""
        return self.messages("evaluate", self.validation_order(server_round, state))

    def validation_order(self, server_round: int, state: State) -> Order:
        """What centers are asked about a state's worth."""
        self.order = replace(self.order, round=server_round, state=state)
        return replace(self.order, subset="validation", mode=validation_mode(self.order.step))

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Screened sums are kept in ``outcome``; division happens once, where the metric is made."""
        form = form_of({}, {}, self.scores.shapes)
        self.outcome = self._screened(replies, self._check_scores, lambda center: form)
        self._acknowledge()
        return None

    def _check_scores(self, reply: Reply) -> Rejection | None:
        most = None if self.validation is None else float(self.validation.get(reply.center, 0))
        return screen(reply, replace(self.scores, cases=most))

    # ---------------------------------------------------------------------------------------------------------- shared

    def summary(self) -> None:
        """One line on what this strategy does."""
        step, spec = self.order.step, self.order.step.federation
        log.info(
            "step=%s rule=%s compression=%s centers=%s", step.name, spec.kind, spec.compression.kind, len(self.nodes)
        )

    def screen_masked(self, replies: Iterable[Message], form: State, kind: str) -> None:
        """Replies of a secure sum that have its form; what stands in them nobody can say."""
        expected = Expected({}, extra=form, counts=COUNTS_OF[kind])

        def check(reply: Reply) -> Rejection | None:
            lacks = set(form) - set(reply.extra)
            return screen(reply, expected) or (
                Rejection("incomplete", "numbers under masks are missing") if lacks else None
            )

        whole = form_of({}, form, {})
        self.outcome = self._screened(replies, check, lambda center: whole)

    def messages(self, kind: str, order: Order) -> list[Message]:
        """Messages to those that are not resting, in the order of codes; equal contents are made once."""
        contents: dict[tuple[int, int, int, bool, int], HandedOrder] = {}
        centers = [center for center in sorted(self.nodes) if center not in self.resting]
        messages = []
        self.asked.clear()
        for center, own in self.link.address(order, centers).items():
            since, best = self._kept_at(center, order)
            met, earlier = center in self.met, self.earlier.get(center, 0) if keeps_state(order.step) else 0
            key = (id(own), since, best, met, earlier)
            if key not in contents:
                asked = replace(own, since=since, best=best, met=met, earlier=earlier)
                digest = self.digest(own.state) if own.state is order.state else ""
                contents[key] = HandedOrder(asked, kind, state_digest=digest)
            self.asked[center] = contents[key].order.id
            messages.append(Message(contents[key], dst_node_id=self.nodes[center], message_type=kind))
        return messages

    def digest(self, state: State) -> str:
        """`tensors_digest`, taken once of a state that stands in several orders and in the ledger."""
        now = [(name, tensor, tensor._version) for name, tensor in state.items()]
        if not (len(now) == len(self._digested[0]) and all(map(_is_same, now, self._digested[0]))):
            self._digested = now, tensors_digest(state)
        return self._digested[1]

    def _kept_at(self, center: str, order: Order) -> tuple[int, int]:
        """The last used round of a center and, up to the best one so far, again the last: what its vault must keep."""
        used = self.used.get(center, []) if keeps_state(order.step) else []
        return max(used, default=0), max((number for number in used if number <= self.best), default=0)

    def _screened(self, replies: Iterable[Message], check: Check, form: Callable[[str], Form]) -> Outcome:
        return screened(replies, check, nodes=self.nodes, resting=self.resting, asked=self.asked, form=form)

    def _acknowledge(self) -> None:
        if self.link.spec.kind == NONE:
            return
        digest = self.digest(self.order.state)
        for center in self.nodes:
            if center in self.outcome.accepted:
                self.link.acknowledge(center, digest)
            else:
                self.link.forget(center)


def _is_same(a: Seen, b: Seen) -> bool:
    return a[0] == b[0] and a[1] is b[1] and a[2] == b[2]
