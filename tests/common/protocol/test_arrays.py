"""What nobody asked for is refused by its header, before a byte is decoded; both sides."""

import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord

from common.config.load import compose_run
from common.config.run import BackboneSpec, Split
from common.errors import ConfigError, WireError
from common.protocol import wire
from common.protocol.arrays import MAX_ARRAYS, Undeclared, check_headers, form_of, pack_state
from common.protocol.messages import Order, Reply
from common.protocol.packing import pack, unpack
from common.protocol.wire import pack_order, pack_reply, unpack_order, unpack_reply
from server.centers.federation import read_reply

STATE = {"head/w": torch.zeros(3, 2), "head/n": torch.tensor(1)}
FORM = form_of(STATE, {"control/head/w": torch.zeros(3, 2)}, {"cases": ()})


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({"head/x": torch.zeros(1)}, "Nobody asked for array 'head/x'"),
        ({"head/w": torch.zeros(3, 3)}, "declared float32 of"),
        ({"head/w": torch.zeros(3, 2).double()}, "is float64"),
        ({"head/x\nERROR center=MDA code=ok": torch.zeros(1)}, "'head/x ERROR center=MDA code=ok'"),
    ],
    ids=["name", "shape", "type", "a line of a log"],
)
def test_another_form_is_undeclared_and_told_in_one_line(arrays, told):
    reply = read_reply(pack_reply(Reply("CHUM", state=arrays, order="a" * 64)), asked="a" * 64, form=FORM)
    assert (reply.code, reply.state) == ("undeclared", {}) and told in reply.told and "\n" not in reply.told


def test_what_is_declared_arrives_bit_for_bit_packed_or_not():
    sent = Reply("CHUM", state=STATE, extra={"control/head/w": torch.ones(3, 2)}, sums={"cases": np.array(3.0)})
    for content in (pack_reply(sent), unpack(pack(pack_reply(sent)))):
        back = unpack_reply(content, FORM)
        assert torch.equal(back.extra["control/head/w"], torch.ones(3, 2)) and back.sums["cases"] == 3.0
        assert all(torch.equal(back.state[name], tensor) for name, tensor in STATE.items())


def test_a_length_that_is_not_the_forms_is_not_read():
    record = pack_state({"head/w": torch.zeros(3, 2)})
    longer = Array(dtype="float32", shape=(3, 2), stype=record["head/w"].stype, data=record["head/w"].data + b"x" * 9)
    with pytest.raises(Undeclared, match="bytes, declared"):
        check_headers({"head/w": longer}, FORM.arrays)


def test_two_hundred_thousand_undeclared_arrays_are_refused_at_the_first():
    content = pack_reply(Reply("CHUM", order="a" * 64))
    empty = Array(np.zeros(0, np.float32))
    for number in range(200_000):
        content.array_records["arrays"][f"x{number}"] = empty
    began = time.perf_counter()
    assert read_reply(content, asked="a" * 64, form=FORM).code == "undeclared"
    assert time.perf_counter() - began < 0.1


def an_order(**changes):
    step = compose_run([]).steps["relapse"]
    return Order(step=step, seed=1, round=1, backbone=BackboneSpec(), base="abc", split=Split(), state=STATE, **changes)


def test_a_large_order_is_compared_with_its_step_before_it_is_decoded(monkeypatch):
    content = pack_order(an_order())
    monkeypatch.setattr(wire, "LARGE", 10)
    assert unpack_order(content, lambda order: (STATE, {})).state.keys() == STATE.keys()
    monkeypatch.setattr(wire, "unpack_state", lambda record: pytest.fail("it was decoded"))
    with pytest.raises(Undeclared, match="Nobody asked"):
        unpack_order(content, lambda order: ({"head/w": STATE["head/w"]}, {}))


def test_an_order_of_too_many_arrays_or_with_a_name_of_megabytes_is_refused():
    content = pack_order(an_order())
    with pytest.raises(WireError, match="longer than"):
        unpack_order(pack_order(replace(an_order(), state={"x" * 10**6: torch.zeros(1)})))
    empty = Array(np.zeros(0, np.float32))
    content["arrays"] = ArrayRecord({f"x{number}": empty for number in range(MAX_ARRAYS + 1)})
    with pytest.raises(WireError, match="arrays is none"):
        unpack_order(content)


@pytest.mark.parametrize("name", ["x" * 50_000_000, "x" * 200, "a\nERROR center=MDA", "a\u202eb"], ids=len)
def test_a_steps_name_that_is_long_or_more_than_one_line_is_refused(name):
    order = an_order()
    order.step.name = name
    with pytest.raises(WireError, match="characters"):
        unpack_order(pack_order(order))


@pytest.mark.parametrize("field", ["mode", "subset", "reference", "run", "continues"])
def test_other_texts_of_an_order_are_short_and_of_one_line(field):
    for text in ("CT\nPET", "x" * 1000):
        with pytest.raises(WireError, match=field):
            unpack_order(pack_order(an_order(**{field: text})))


def test_a_step_nested_without_end_is_refused():
    content = pack_order(an_order())
    for depth, sentence in ((200_000, "has 400000 characters"), (30_000, "RecursionError"), (100, "deep")):
        content.config_records["config"]["step"] = "[" * depth + "]" * depth
        with pytest.raises(ConfigError, match=sentence):
            unpack_order(content)
