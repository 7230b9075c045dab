"""PackedGrid: Flower's Grid over a network, with every message's arrays packed into one on the way."""

from __future__ import annotations

import time
from collections.abc import Iterable

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from common.errors import WireError
from common.protocol.packing import pack, unpack

POLL_S = 0.5


class PackedGrid(Grid):
    """Another grid, packing what goes out and unpacking what comes back; a reply that cannot be unpacked stays so."""

    def __init__(self, grid: Grid):
        self.grid = grid

    def set_run(self, run: Run) -> None:
        """Of the grid inside."""
        self.grid.set_run(run)

    @property
    def run(self) -> Run:
        """Of the grid inside."""
        return self.grid.run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A message as Flower makes it."""
        return Message(content, dst_node_id=dst_node_id, message_type=message_type, group_id=group_id, ttl=ttl)

    def get_node_ids(self) -> Iterable[int]:
        """Connected nodes."""
        return self.grid.get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send packed copies."""
        return self.grid.push_messages(_packed(list(messages), lifetime_s=None))

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Replies, unpacked."""
        return [_unpacked(reply) for reply in self.grid.pull_messages(message_ids)]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Send packed copies that live no longer than somebody waits for them; the replies so far, unpacked.

        Flower's own loop looks every 3 s; a look costs a request on loopback, so this one looks more often.
        """
        waiting = set(self.grid.push_messages(_packed(list(messages), lifetime_s=timeout)))
        deadline = None if timeout is None else time.monotonic() + timeout
        replies: list[Message] = []
        while waiting and (deadline is None or time.monotonic() < deadline):
            found = list(self.pull_messages(waiting))
            replies += found
            waiting -= {reply.metadata.reply_to_message_id for reply in found}
            if waiting and not found:
                time.sleep(POLL_S)
        return replies


def _packed(messages: list[Message], *, lifetime_s: float | None) -> list[Message]:
    contents: dict[int, RecordDict] = {}  # one order goes to every center: it is packed once
    for message in messages:
        if id(message.content) not in contents:
            contents[id(message.content)] = pack(message.content)
    return [
        Message(
            contents[id(message.content)],
            dst_node_id=message.metadata.dst_node_id,
            message_type=message.metadata.message_type,
            group_id=message.metadata.group_id,
            ttl=lifetime_s or message.metadata.ttl,
        )
        for message in messages
    ]


def _unpacked(reply: Message) -> Message:
    if reply.has_content():
        try:
            reply.content = unpack(reply.content)
        except WireError:
            return reply  # it is read as malformed where it is looked at
    return reply
