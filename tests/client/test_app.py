"""The app's door: which center answers, and that a message which is no order is answered with a code."""

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict

from client.app import _center_file, app
from common.errors import WireError
from common.protocol.wire import unpack_reply
from simulations.virtual.local_grid import LocalGrid


def context(**node):
    return Context(run_id=1, node_id=7, node_config=node, state=RecordDict(), run_config={})


def test_the_center_comes_from_the_nodes_own_configuration(tmp_path, monkeypatch):
    assert _center_file(context(center="/etc/fedgraft/CHUM.yaml")).stem == "CHUM"
    for code in ("CHUP", "CHUM", "MDA"):
        (tmp_path / f"{code}.yaml").write_text("")
    monkeypatch.setenv("FEDGRAFT_CENTERS", str(tmp_path))
    found = [_center_file(context(**{"partition-id": i, "num-partitions": 3})).stem for i in range(3)]
    assert found == ["CHUM", "CHUP", "MDA"]


def test_a_node_without_a_center_says_how_to_name_one(monkeypatch):
    monkeypatch.delenv("FEDGRAFT_CENTERS", raising=False)
    with pytest.raises(WireError, match="--node-config"):
        _center_file(context())


@pytest.mark.parametrize("kind", ["train", "evaluate", "query.describe"])
@pytest.mark.parametrize(
    ("node", "content", "code"),
    [
        ({}, RecordDict(), ("unknown", "wire")),
        ({"center": "/nowhere/CHUM.yaml"}, RecordDict(), ("CHUM", "config")),
        ({"center": "/nowhere/CHUM.yaml"}, RecordDict({"config": ConfigRecord({"step": "{}"})}), ("CHUM", "config")),
    ],
)
def test_whatever_arrives_is_answered_with_a_code(monkeypatch, caplog, kind, node, content, code):
    monkeypatch.delenv("FEDGRAFT_CENTERS", raising=False)
    LocalGrid({}, workers=0).close()
    reply = app(Message(content, dst_node_id=7, message_type=kind), context(**node))
    answer = unpack_reply(reply.content)
    assert (answer.center, answer.code) == code
    assert not answer.state and not answer.sums and not answer.counts and caplog.records
