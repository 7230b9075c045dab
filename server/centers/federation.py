"""Federation: the only door to Flower's Grid. It asks centers by code and hands back replies by code."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from common.errors import BaseMissing, RoundFailed
from common.protocol.arrays import Form
from common.protocol.handed import HandedOrder, HandedReply, bytes_in, order_id_in
from common.protocol.messages import STAGE, Order, Reply
from common.protocol.wire import unpack_reply
from server.centers.forms import answer_form
from server.centers.roster import Roster

log = logging.getLogger("fedgraft.server")

Traffic = dict[str, dict[str, int]]  # center -> bytes {"up", "down"}
UNREACHED = "no_reply"
MALFORMED = "malformed"
WRONG_CENTER = "wrong_center"  # a reply in another center's name than that of the node that was asked
STALE = "stale"  # a reply to another order than the one it was asked
ASK_AGAIN_S = 60.0  # a node that does not say who it is within this is asked again
COMES_BACK_S = 30.0  # how long a node that left while it was asked may take until it is there again
UNKNOWN = "unknown"  # in counted bytes: a node that did not say, or not truly, who it is
SETTLE_S = 5.0  # where a step asks everyone: how long no new node may appear before the step begins


@dataclass
class Delivery:
    """What came back for a batch of messages, before anyone looked inside."""

    messages: list[Message] = field(default_factory=list)
    asked: dict[str, str] = field(default_factory=dict)  # center -> id of the order that it was sent
    bytes: Traffic = field(default_factory=dict)
    seconds: float = 0.0


@dataclass
class Exchange:
    """What one question to several centers brought back."""

    replies: dict[str, Reply] = field(default_factory=dict)
    bytes: Traffic = field(default_factory=dict)
    seconds: float = 0.0
    silent: list[str] = field(default_factory=list)  # connected, but did not say who they are before the deadline

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
        self.stages: Callable[[Sequence[str]], Sequence[Order]] | None = None  # what bases are made of, to be sent
        self.roster: Roster | None = None  # of the run: nothing is sent to a center that has left it
        self.nodes: dict[str, int] = {}
        self._asked: set[int] = set()  # nodes that were asked who they are

    def discover(self, order: Order, *, at_least: int = 1, everyone: bool = False) -> Exchange:
        """Ask every connected node who it is and what it holds for a step; remember the codes.

        Waits until ``at_least`` nodes are connected and, for ``everyone``, until no more come, at most for the
        patience; raises RoundFailed when none is.
        """
        return self._introduce(self._wait_for_nodes(at_least, everyone), order, order.step.federation.deadline_s)

    def newcomers(self, order: Order) -> Exchange:
        """Ask nodes that were not asked before, at most for the patience: a center that comes late, or comes back."""
        unknown = sorted(set(self.grid.get_node_ids()) - self._asked)
        if not unknown:
            return Exchange()
        return self._introduce(unknown, order, min(order.step.federation.deadline_s, max(self.patience_s, 1.0)))

    def connected(self) -> set[str]:
        """Centers whose node is there now."""
        online = set(self.grid.get_node_ids())
        return {center for center, node in self.nodes.items() if node in online}

    def ask(self, centers: Iterable[str], order: Order, action: str) -> Exchange:
        """Send one order to the given centers and wait for their replies, at most the step's deadline."""
        nodes = {center: self.nodes[center] for center in sorted(centers)}
        return self._send(nodes, order, action, order.step.federation.deadline_s)

    def ask_each(self, orders: Mapping[str, Order], action: str) -> Exchange:
        """`ask` with an order for each center; one that several share is packed once."""
        contents = {
            id(order): HandedOrder(order, action) for order in {id(own): own for own in orders.values()}.values()
        }
        messages = [
            Message(contents[id(order)], dst_node_id=self.nodes[center], message_type=action)
            for center, order in sorted(orders.items())
        ]
        names = {self.nodes[center]: center for center in orders}
        deadline = max((order.step.federation.deadline_s for order in orders.values()), default=0.0)
        forms = [answer_form(order, action) for order in list(orders.values())[:1]]
        return self.exchange(messages, names=names, timeout_s=deadline, form=forms[0] if forms else Form())

    def deliver(self, messages: Iterable[Message], *, names: Mapping[int, str], timeout_s: float) -> Delivery:
        """Send prepared messages and wait, at most for the timeout; strangers' and failed replies are left out.

        A reply counts towards its center's bytes however often it comes.
        """
        started = time.perf_counter()
        closed = self._closed()
        sent = [message for message in messages if message.metadata.dst_node_id not in closed]
        found = Delivery(asked={names[m.metadata.dst_node_id]: order_id_in(m.content) for m in sent})
        size: tuple[RecordDict, int] | None = None
        for message in sent:
            if size is None or size[0] is not message.content:  # one order goes to every center
                size = (message.content, bytes_in(message.content))
            found.bytes[names[message.metadata.dst_node_id]] = {"up": 0, "down": size[1]}
        for reply in self._answers(sent, found.bytes, names=names, timeout_s=timeout_s) if sent else []:
            name = names.get(reply.metadata.src_node_id)
            if reply.has_error() or name not in found.bytes:
                continue
            found.bytes[name]["up"] += bytes_in(reply.content)
            found.messages.append(reply)
        found.seconds = time.perf_counter() - started
        return found

    def _answers(
        self, sent: list[Message], traffic: Traffic, *, names: Mapping[int, str], timeout_s: float
    ) -> list[Message]:
        """Replies; a center that lacks stages of the order's base gets them in their order and is asked once more."""
        replies = self._carried(sent, timeout_s)
        lacking = {reply.metadata.src_node_id for reply in replies if _lacks_base(reply)}
        again = [message for message in sent if message.metadata.dst_node_id in lacking]
        if not again or self.stages is None:
            return replies
        for order in self.stages(_merged_in(again[0])):
            content = HandedOrder(order, STAGE)
            for message in again:
                traffic[names[message.metadata.dst_node_id]]["down"] += bytes_in(content)
            asked = [Message(content, dst_node_id=m.metadata.dst_node_id, message_type=STAGE) for m in again]
            for reply in self._carried(asked, timeout_s):
                if not reply.has_error() and (name := names.get(reply.metadata.src_node_id)) in traffic:
                    traffic[str(name)]["up"] += bytes_in(reply.content)
        repeated = [
            Message(m.content, dst_node_id=m.metadata.dst_node_id, message_type=m.metadata.message_type) for m in again
        ]
        newer = self._carried(repeated, timeout_s)
        answered = {reply.metadata.src_node_id for reply in newer}
        return [reply for reply in replies if reply.metadata.src_node_id not in answered] + newer

    def _carried(self, messages: list[Message], timeout_s: float) -> list[Message]:
        """The grid's replies: orders go as themselves where its centers are in this very process, else as bytes."""
        if not getattr(self.grid, "hands_over", False):
            messages = packed(messages)
        return list(self.grid.send_and_receive(messages, timeout=timeout_s))

    def exchange(
        self, messages: Iterable[Message], *, names: Mapping[int, str], timeout_s: float, form: Form
    ) -> Exchange:
        """Send prepared messages; a center that does not answer in time has the code ``no_reply``, one that answers in
        another's name ``wrong_center``."""
        delivery = self.deliver(messages, names=names, timeout_s=timeout_s)
        found = Exchange(bytes=delivery.bytes, seconds=delivery.seconds)
        found.replies = {name: Reply(name, code=UNREACHED) for name in delivery.bytes}
        for message in delivery.messages:
            name = names[message.metadata.src_node_id]
            reply = read_reply(message.content, asked=delivery.asked[name], form=form)
            if name in self.nodes and reply.is_usable and reply.center != name:
                reply = Reply(name, code=WRONG_CENTER)
            found.replies[name] = reply
        return found

    def _closed(self) -> set[int]:
        """Nodes of centers that have left the run: the one door to the Grid is shut for them."""
        gone = frozenset() if self.roster is None else self.roster.gone
        enrolled = {} if self.enrolled is None else self.enrolled()
        return {node for codes in (self.nodes, enrolled) for code, node in codes.items() if code in gone}

    def _introduce(self, node_ids: Iterable[int], order: Order, timeout_s: float) -> Exchange:
        asked = {str(node): node for node in node_ids}
        self._asked |= set(asked.values())
        exchange = self._described(asked, order, timeout_s)
        found = Exchange(seconds=exchange.seconds)
        online = set(self.grid.get_node_ids())
        codes = None if self.enrolled is None else {node: code for code, node in self.enrolled().items()}
        claims = Counter(reply.center for reply in exchange.replies.values() if reply.code != UNREACHED)
        for node, reply in exchange.replies.items():
            if reply.code == UNREACHED:
                found.silent.append((codes or {}).get(int(node)) or self._code_at(int(node)))
                continue
            if codes is None and claims[reply.center] > 1:
                log.warning(
                    "%d nodes without keys call themselves %s: all left out", claims[reply.center], reply.center
                )
                continue
            if codes is not None and reply.code == MALFORMED:  # it does not say who it is, its key does
                reply = replace(reply, center=codes.get(int(node), reply.center))
            if codes is not None and codes.get(int(node)) != reply.center:
                log.warning("a node enrolled as %s calls itself %s: left out", codes.get(int(node)), reply.center)
                if (own := codes.get(int(node))) is None:
                    continue
                reply = Reply(own, code=WRONG_CENTER)
            known = self.nodes.get(reply.center)
            if reply.center in found.replies or (known not in (None, int(node)) and known in online):
                log.warning("two nodes call themselves %s: the second one is left out", reply.center)
                continue
            self.nodes[reply.center] = int(node)
            found.replies[reply.center] = reply
        for node, ways in exchange.bytes.items():
            found.bytes = added(found.bytes, {self._code_at(int(node)): ways})
        return found

    def _code_at(self, node: int) -> str:
        return next((center for center, known in self.nodes.items() if known == node), UNKNOWN)

    def _described(self, nodes: Mapping[str, int], order: Order, timeout_s: float) -> Exchange:
        """Ask who they are, and ask those again that are connected and silent, with twice the patience each time.

        A node that was at work when the SuperLink died may take a new message and never answer it; asking twice does
        no harm. One that left while it was asked (its SuperNode may end when a run ends under it, and is started again)
        is waited for, for a moment. A simulation's nodes lose nothing and are asked once.
        """
        left, patience = (
            timeout_s,
            timeout_s if getattr(self.grid, "is_complete", False) else min(ASK_AGAIN_S, timeout_s),
        )
        found = self._send(nodes, order, "query.describe", patience)
        while (left := left - patience) > 0:
            silent = {node: nodes[node] for node, reply in found.replies.items() if reply.code == UNREACHED}
            back, waited = self._back(set(silent.values()), min(COMES_BACK_S, self.patience_s, left))
            silent = {name: node for name, node in silent.items() if node in back}
            left -= waited
            if not silent or left <= 0:
                break
            patience = min(2 * patience, left)
            again = self._send(silent, order, "query.describe", patience)
            found.replies |= again.replies
            found.seconds += again.seconds
            found.bytes = added(found.bytes, again.bytes)
        return found

    def _back(self, nodes: set[int], within_s: float) -> tuple[set[int], float]:
        """Which of some nodes are connected, once all are or the time is over; the seconds that it took."""
        waited = 0.0
        while (there := nodes & set(self.grid.get_node_ids())) != nodes and waited < within_s:
            time.sleep(min(1.0, within_s - waited))
            waited += min(1.0, within_s - waited)
        return there, waited

    def _send(self, nodes: Mapping[str, int], order: Order, action: str, timeout_s: float) -> Exchange:
        content = HandedOrder(order, action)
        messages = [Message(content, dst_node_id=node, message_type=action) for node in nodes.values()]
        names = {node: name for name, node in nodes.items()}
        return self.exchange(messages, names=names, timeout_s=timeout_s, form=answer_form(order, action))

    def _wait_for_nodes(self, at_least: int, everyone: bool) -> list[int]:
        """Connected nodes; a grid that says `is_complete` (a simulation's) never has more to come."""
        deadline = time.monotonic() + self.patience_s
        settled = getattr(self.grid, "is_complete", False) or not everyone
        count, since = 0, time.monotonic()
        while True:
            node_ids = sorted(self.grid.get_node_ids())
            now = time.monotonic()
            if len(node_ids) != count:
                count, since = len(node_ids), now
            is_over = now > deadline
            enough = len(node_ids) >= at_least and (settled or now - since >= SETTLE_S)
            if enough or (node_ids and is_over):
                return node_ids
            if is_over:
                raise RoundFailed(
                    f"None of {at_least} centers connected within {self.patience_s:.0f} s; start their clients."
                )
            time.sleep(min(1.0, self.patience_s))


def _lacks_base(reply: Message) -> bool:
    """Whether a center says that it lacks stages; whatever else its bytes are is for `read_reply` to say."""
    try:
        if isinstance(reply.content, HandedReply):
            return reply.content.reply.code == BaseMissing.code
        return str(reply.content.config_records["status"]["code"]) == BaseMissing.code
    except Exception:
        return False


def _merged_in(message: Message) -> list[str]:
    """The stages of the base that an order names, and the step that teaches, where there is one."""
    if isinstance(message.content, HandedOrder):
        order = message.content.order
        return [*order.merged, *([order.teacher] if order.teacher else [])]
    config = message.content.config_records["config"]
    teacher = [str(config["teacher"])] if "teacher" in config else []
    return [*(str(key) for key in config.get("merged", [])), *teacher]  # type: ignore[union-attr]


def packed(messages: Iterable[Message]) -> list[Message]:
    """Messages whose orders are bytes; one order that goes to several centers is packed once."""
    contents: dict[int, RecordDict] = {}
    made = []
    for message in messages:
        content, to = message.content, message.metadata
        if isinstance(content, HandedOrder):
            if id(content) not in contents:
                contents[id(content)] = content.packed()
            message = Message(contents[id(content)], dst_node_id=to.dst_node_id, message_type=to.message_type)
        made.append(message)
    return made


def added(a: Traffic, b: Traffic) -> Traffic:
    """The bytes of two exchanges together."""
    return {c: {way: a.get(c, {}).get(way, 0) + b.get(c, {}).get(way, 0) for way in ("up", "down")} for c in {**a, **b}}


def read_reply(content: RecordDict, *, asked: str, form: Form | None = None) -> Reply:
    """A reply to this very order: the one place where answers to every kind of question are read.

    Whatever reading one may raise becomes the code ``malformed``; a reply to another order becomes ``stale``: it may be
    late, or Flower's SuperNode one message behind. A code alone may come from a node that could not read the order.

    Args:
        asked: id of the order that the center was sent.
        form: what may stand in an answer to it; compared before anything is decoded.
    """
    try:
        reply = content.read(form) if isinstance(content, HandedReply) else unpack_reply(content, form)
    except Exception as error:  # the sender chooses every byte: nothing that it sends may end the run
        log.warning("a reply cannot be read: %s", type(error).__name__)
        return Reply("unknown", code=MALFORMED)
    if reply.order == asked or (not reply.order and not reply.is_usable):
        return reply
    return Reply(reply.center, code=STALE, seconds=reply.seconds, round=reply.round, order=reply.order)
