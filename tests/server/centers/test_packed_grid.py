"""What goes through a SuperLink is packed and lives as long as somebody waits; what comes back is as it was sent."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

from common.protocol.packing import PACKED, pack
from server.centers.packed_grid import PackedGrid


class Wire(Grid):
    """A SuperLink that answers each message after some looks: with its own content, or with what a test wants."""

    def __init__(self, *, looks: int = 0, answer=lambda content: content):
        self.looks, self.answer, self.sent = looks, answer, {}

    def set_run(self, run) -> None:
        raise NotImplementedError

    @property
    def run(self):
        raise NotImplementedError

    def create_message(self, *arguments, **more):
        raise NotImplementedError

    def get_node_ids(self):
        return [3, 4]

    def push_messages(self, messages):
        for message in messages:
            message.metadata.__dict__["_message_id"] = f"m{len(self.sent)}"
            self.sent[message.metadata.message_id] = message
        return list(self.sent)

    def pull_messages(self, message_ids):
        self.looks -= 1
        if self.looks >= 0:
            return []
        return [Message(self.answer(self.sent[key].content), reply_to=self.sent[key]) for key in sorted(message_ids)]

    def send_and_receive(self, messages, *, timeout=None):
        raise NotImplementedError


@pytest.fixture(autouse=True)
def identity(monkeypatch):
    monkeypatch.setattr("server.centers.packed_grid.POLL_S", 0.01)
    before = (TaskIdentity._task_id, TaskIdentity._run_id, TaskIdentity._node_id)
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 2, 1
    yield
    TaskIdentity._task_id, TaskIdentity._run_id, TaskIdentity._node_id = before


def order() -> RecordDict:
    arrays = ArrayRecord({name: Array(np.arange(size, dtype=np.float32)) for name, size in (("a", 3), ("b", 0))})
    return RecordDict({"arrays": arrays, "config": ConfigRecord({"round": 1})})


def messages() -> list[Message]:
    content = order()
    return [Message(content, dst_node_id=node, message_type="train") for node in (3, 4)]


def test_replies_come_back_as_they_were_sent_and_only_bytes_cross():
    wire = Wire(looks=2)
    replies = PackedGrid(wire).send_and_receive(messages(), timeout=5.0)
    assert [set(message.content) for message in wire.sent.values()] == [{PACKED, "config"}] * 2
    first, second = (message.content for message in wire.sent.values())
    assert first is second, "one order goes to every center: it is packed once"
    for reply in replies:
        assert set(reply.content) == {"arrays", "config"}
        assert {k: v.numpy().tolist() for k, v in reply.content["arrays"].items()} == {"a": [0.0, 1.0, 2.0], "b": []}


def test_a_message_lives_as_long_as_somebody_waits_for_it():
    wire = Wire()
    PackedGrid(wire).send_and_receive(messages(), timeout=7.0)
    assert {message.metadata.ttl for message in wire.sent.values()} == {7.0}


def test_what_does_not_come_in_time_is_left_out():
    assert list(PackedGrid(Wire(looks=10_000)).send_and_receive(messages(), timeout=0.05)) == []


def test_a_reply_that_is_not_packed_or_broken_stays_what_it_is():
    def broken(content):
        packed = pack(order())
        packed[PACKED] = ArrayRecord({PACKED: Array(np.zeros(4, np.uint8))})
        return packed

    [first, _] = PackedGrid(Wire(answer=broken)).send_and_receive(messages(), timeout=5.0)
    assert set(first.content) == {PACKED, "config"}
    [plain, _] = PackedGrid(Wire(answer=lambda content: order())).send_and_receive(messages(), timeout=5.0)
    assert set(plain.content) == {"arrays", "config"}
