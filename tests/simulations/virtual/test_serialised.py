"""LocalGrid's own way to bytes gives Flower's bytes, whatever a message holds."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.common.serde import message_to_proto

from simulations.virtual import local_grid
from simulations.virtual.local_grid import LocalGrid, _serialised

FULL = {
    "arrays": ArrayRecord({"b": Array(np.arange(6.0).reshape(2, 3)), "a": Array(np.array(1.5, np.float32))}),
    "config": ConfigRecord({"text": "x", "number": 3, "yes": True, "list": [1.0, 2.0]}),
    "metrics": MetricRecord({"loss": 0.5}),
}
CONTENTS = [
    RecordDict(FULL),
    RecordDict(),
    RecordDict({"arrays": ArrayRecord()}),
    RecordDict({"arrays": ArrayRecord({"empty": Array(np.zeros((0, 4), np.float32))})}),
    RecordDict({"config": ConfigRecord(), "arrays": FULL["arrays"]}),
]


@pytest.fixture
def grid(tmp_path) -> LocalGrid:
    return LocalGrid({"A": tmp_path / "A.yaml", "B": tmp_path / "B.yaml"}, workers=0)


@pytest.mark.parametrize("content", CONTENTS, ids=["full", "nothing", "no-arrays", "empty-array", "two"])
def test_bytes_are_flowers_bytes(grid, content):
    message = Message(content, dst_node_id=100, message_type="train")
    assert _serialised(message) == message_to_proto(message).SerializeToString()
    assert grid._task(message)[0] == message_to_proto(message).SerializeToString()


def test_an_error_has_flowers_bytes_too(grid):
    sent = Message(RecordDict(), dst_node_id=100, message_type="train")
    message = Message(Error(code=3, reason="worker died"), reply_to=sent)
    assert _serialised(message) == message_to_proto(message).SerializeToString()


def test_one_content_for_two_centers_is_serialised_once_and_another_is_not_mistaken_for_it(grid, monkeypatch):
    made = []
    original = local_grid._content
    monkeypatch.setattr(local_grid, "_content", lambda content: made.append(content) or original(content))
    first, second = RecordDict(FULL), RecordDict({"config": ConfigRecord({"round": 2})})
    messages = [Message(c, dst_node_id=n, message_type="train") for c in (first, second) for n in (100, 101)]
    tasks = [grid._task(message) for message in messages]
    assert len(made) == 2 and made[0] is first and made[1] is second
    assert [task[0] for task in tasks] == [message_to_proto(m).SerializeToString() for m in messages]
    assert [task[2] for task in tasks] == [100, 101, 100, 101]
