"""AdapterStrategy: one Flower Strategy for every step; it configures messages and aggregates screened replies."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from common.modes import validation_mode
from common.orders import Order, Reply, State, Sums
from common.tasks import merge_sums
from common.wire import FIT_SUMS, pack_order, pack_state, unpack_state
from server.aggregation.mean import WEIGHTINGS, Update, mean
from server.federation import read_reply
from server.screening import missing_in_scores, missing_in_update, reason_to_reject

log = logging.getLogger("fedgraft.server")


@dataclass
class Outcome:
    """What a phase of a round gave, beside the arrays."""

    accepted: dict[str, Reply] = field(default_factory=dict)
    rejected: dict[str, str] = field(default_factory=dict)

    @property
    def sums(self) -> Sums:
        """Sums over the accepted centers, in the order of their codes."""
        return merge_sums([reply.sums for _, reply in sorted(self.accepted.items())])


class AdapterStrategy(Strategy):
    """Sends the adapter state to the step's centers and averages what comes back."""

    def __init__(
        self, order: Order, *, nodes: Mapping[str, int], cases: Mapping[str, int], sum_shapes: Mapping[str, tuple]
    ):
        self.order = order
        self.nodes = dict(nodes)
        self.cases = dict(cases)  # registered at enrolment: a reply cannot claim more
        self.sum_shapes = {**FIT_SUMS, **sum_shapes}
        self.outcome = Outcome()

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """One training order per center."""
        return self._messages("train", replace(self.order, round=server_round, state=unpack_state(arrays)))

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The new state, or None when the quorum is missed and the model stays as it was."""
        start = self.order.state
        self.outcome = self._screen(replies, start, lambda reply: missing_in_update(reply, state_like=start))
        spec = self.order.step.federation
        needed = max(1, math.ceil(spec.quorum * len(self.nodes) - 1e-9))  # a share is reached, never rounded down to
        if len(self.outcome.accepted) < needed:
            log.warning("round=%s void: %s of %s needed replies", server_round, len(self.outcome.accepted), needed)
            return None, None
        weigh = WEIGHTINGS[spec.weighting]
        updates = [Update(c, reply.state, weigh(self.cases[c])) for c, reply in self.outcome.accepted.items()]
        return pack_state(mean(updates, start=start)), None

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """One validation order per center."""
        mode = validation_mode(self.order.step)
        order = replace(self.order, round=server_round, state=unpack_state(arrays), subset="validation", mode=mode)
        return self._messages("evaluate", order)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Screened sums are kept in ``outcome``; division happens once, where the metric is made."""
        self.outcome = self._screen(replies, {}, lambda reply: missing_in_scores(reply, sum_shapes=self.sum_shapes))
        return None

    def summary(self) -> None:
        """One line on what this strategy does."""
        spec = self.order.step.federation
        log.info(
            "step=%s rule=%s weighting=%s centers=%s", self.order.step.name, spec.kind, spec.weighting, len(self.nodes)
        )

    def _messages(self, kind: str, order: Order) -> list[Message]:
        content = pack_order(order)
        return [Message(content, dst_node_id=node, message_type=kind) for _, node in sorted(self.nodes.items())]

    def _screen(self, replies: Iterable[Message], state_like: State, missing: Callable[[Reply], str | None]) -> Outcome:
        names = {node: center for center, node in self.nodes.items()}
        outcome = Outcome(rejected=dict.fromkeys(self.nodes, "no_reply"))
        for message in replies:
            center = names.get(message.metadata.src_node_id)
            if center is None or message.has_error():
                continue
            reply = read_reply(message.content)
            reason = reason_to_reject(reply, state_like=state_like, sum_shapes=self.sum_shapes) or missing(reply)
            if reply.center != center:
                reason = reason or "wrong_center"
            if reason is None:
                outcome.accepted[center] = reply
                outcome.rejected.pop(center, None)
            else:
                outcome.rejected[center] = reason
        outcome.accepted = dict(sorted(outcome.accepted.items()))
        return outcome
