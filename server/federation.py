"""Federation: the only door to Flower's Grid. It asks centers by code and hands back replies by code."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from common.errors import RoundFailed, WireError
from common.orders import Order, Reply
from common.wire import content_bytes, pack_order, unpack_reply

log = logging.getLogger("fedgraft.server")

UNREACHED = "no_reply"


@dataclass
class Exchange:
    """What one question to several centers brought back."""

    replies: dict[str, Reply] = field(default_factory=dict)
    bytes: dict[str, dict[str, int]] = field(default_factory=dict)  # center -> {"up", "down"}
    seconds: float = 0.0

    @property
    def usable(self) -> dict[str, Reply]:
        """Replies of the centers that did what was asked, in the order of their codes."""
        return {center: reply for center, reply in sorted(self.replies.items()) if reply.is_usable}

    @property
    def failed(self) -> dict[str, str]:
        """Why the others did not."""
        return {center: reply.code for center, reply in sorted(self.replies.items()) if not reply.is_usable}


class Federation:
    """The centers behind a Grid, by code."""

    def __init__(
        self, grid: Grid, *, patience_s: float = 60.0, enrolled: Callable[[], Mapping[str, int]] | None = None
    ):
        """Args:
        enrolled: code -> node id as they are now, where nodes have keys: none can then speak for another center.
        """
        self.grid = grid
        self.patience_s = patience_s
        self.enrolled = enrolled
        self.nodes: dict[str, int] = {}

    def discover(self, order: Order, *, at_least: int = 1) -> Exchange:
        """Ask every connected node who it is and what it holds for a step; remember the codes.

        Waits until ``at_least`` nodes are connected, at most for the patience; raises RoundFailed when none is.
        """
        codes = None if self.enrolled is None else {node: code for code, node in self.enrolled().items()}
        node_ids = self._wait_for_nodes(at_least)
        exchange = self._send(
            {str(node): node for node in node_ids}, order, "query.describe", order.step.federation.deadline_s
        )
        found = Exchange(seconds=exchange.seconds)
        for node, reply in exchange.replies.items():
            if reply.code == UNREACHED:
                continue
            if codes is not None and codes.get(int(node)) != reply.center:
                log.warning("a node enrolled as %s calls itself %s: left out", codes.get(int(node)), reply.center)
                continue
            if reply.center in found.replies:
                log.warning("two nodes call themselves %s: the second one is left out", reply.center)
                continue
            self.nodes[reply.center] = int(node)
            found.replies[reply.center] = reply
            found.bytes[reply.center] = exchange.bytes[node]
        return found

    def ask(self, centers: Iterable[str], order: Order, action: str) -> Exchange:
        """Send one order to the given centers and wait for their replies, at most the step's deadline."""
        nodes = {center: self.nodes[center] for center in sorted(centers)}
        return self._send(nodes, order, action, order.step.federation.deadline_s)

    def exchange(self, messages: Iterable[Message], *, names: Mapping[int, str], timeout_s: float) -> Exchange:
        """Send prepared messages; a center that does not answer in time has the code ``no_reply``."""
        started = time.perf_counter()
        sent = list(messages)
        found = Exchange()
        for message in sent:
            name = names[message.metadata.dst_node_id]
            found.replies[name] = Reply(name, code=UNREACHED)
            found.bytes[name] = {"up": 0, "down": content_bytes(message.content)}
        for message in self.grid.send_and_receive(sent, timeout=timeout_s):
            if message.has_error() or message.metadata.src_node_id not in names:
                continue
            name = names[message.metadata.src_node_id]
            found.bytes[name]["up"] = content_bytes(message.content)
            found.replies[name] = read_reply(message.content)
        found.seconds = time.perf_counter() - started
        return found

    def _send(self, nodes: Mapping[str, int], order: Order, action: str, timeout_s: float) -> Exchange:
        content = pack_order(order)
        messages = [Message(content, dst_node_id=node, message_type=action) for node in nodes.values()]
        return self.exchange(messages, names={node: name for name, node in nodes.items()}, timeout_s=timeout_s)

    def _wait_for_nodes(self, at_least: int) -> list[int]:
        deadline = time.monotonic() + self.patience_s
        while True:
            node_ids = sorted(self.grid.get_node_ids())
            is_over = time.monotonic() > deadline
            if len(node_ids) >= at_least or (node_ids and is_over):
                return node_ids
            if is_over:
                raise RoundFailed(
                    f"None of {at_least} centers connected within {self.patience_s:.0f} s; start their clients."
                )
            time.sleep(min(1.0, self.patience_s))


def read_reply(content: RecordDict) -> Reply:
    """A reply, or the code ``malformed`` for a message that is not one."""
    try:
        return unpack_reply(content)
    except WireError:
        return Reply("unknown", code="malformed")
