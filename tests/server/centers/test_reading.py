"""One place reads replies: an answer to another question is stale, whatever it is an answer to."""

from dataclasses import replace

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from common.config.load import compose_run
from common.config.run import BackboneSpec, Split
from common.protocol.messages import Order, Reply
from common.protocol.wire import order_id, pack_order, pack_reply
from server.centers.federation import read_reply


def an_order(**changes):
    step = compose_run([]).steps["relapse"]
    return Order(step=step, seed=1, round=2, backbone=BackboneSpec(), base="abc", split=Split(), **changes)


@pytest.mark.parametrize(
    "change",
    [{"round": 3}, {"subset": "test"}, {"mode": "CT"}, {"seed": 2}, {"threshold": 0.5}, {"run": "other"}, {"since": 1}],
    ids=lambda change: next(iter(change)),
)
def test_whatever_is_asked_otherwise_is_another_order(change):
    order = an_order()
    asked, other = order_id(pack_order(order)), order_id(pack_order(replace(order, **change)))
    assert asked != other and order_id(pack_order(order)) == asked
    reply = pack_reply(Reply("CHUM", sums={"cases": np.array(3.0)}, order=other))
    late = read_reply(reply, asked=asked)
    assert (late.code, late.center, late.sums) == ("stale", "CHUM", {})
    assert read_reply(reply, asked=other).is_usable


def test_the_same_state_asked_for_by_another_action_is_another_order():
    ids = {order_id(pack_order(an_order(), action)) for action in ("train", "evaluate", "query.describe", "query.sums")}
    assert len(ids) == 4


def test_a_code_from_a_node_that_could_not_read_the_order_is_heard():
    assert read_reply(pack_reply(Reply("CHUM", code="wire")), asked="a" * 64).code == "wire"
    assert read_reply(pack_reply(Reply("CHUM")), asked="a" * 64).code == "stale"


def reply_with(**arrays):
    content = pack_reply(Reply("CHUM", order="a" * 64))
    content["sums"] = ArrayRecord({name: Array(value) for name, value in arrays.items()})
    return content


@pytest.mark.parametrize(
    "content",
    [
        RecordDict({"status": ConfigRecord({"center": "CHUM"})}),
        RecordDict({}),
        reply_with(x=np.array([1.0], ">f4")),
        reply_with(x=np.array(1.0, np.longdouble)),
        reply_with(x=np.array(1j)),
        reply_with(x=np.array(["text"])),
    ],
    ids=["no arrays", "nothing", "byte order", "wide float", "complex", "text"],
)
def test_what_cannot_be_read_is_malformed_and_never_an_exception(content):
    assert read_reply(content, asked="a" * 64).code == "malformed"
