"""Handed over or as bytes: the same id, the same bytes counted, the same record, and the same refusals."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from common.config.run import BackboneSpec, Split
from common.errors import WireError
from common.protocol.arrays import form_of
from common.protocol.handed import HandedOrder, HandedReply, bytes_in, order_id_in, reply_digest, reply_facts
from common.protocol.messages import Order, Reply
from common.protocol.wire import content_bytes, order_id, pack_reply, unpack_order, unpack_reply
from tests.helpers.small import small_run

STATE = {
    "head/b": torch.tensor([1.0, 2.0]),
    "decoder/w": torch.arange(6.0).reshape(2, 3).T,
    "decoder/n": torch.tensor(4),
}
EXTRA = {"control/head/b": torch.tensor([0.5, 0.25])}


@pytest.fixture
def order():
    step = small_run(steps=["tumour_ct"]).steps["tumour_ct"]
    known = {"grid": np.arange(3.0), "newton.hessian": np.array([[[1.0, 2.0], [2.0, 5.0]]])}
    return Order(
        step, 7, 3, BackboneSpec(kind="tiny"), "ab" * 32, Split(), state=dict(STATE), extra=dict(EXTRA), known=known,
        subset="validation", threshold=0.5, seeded=["decoder/a"], run="cd" * 16, merged=["ef" * 32], root="12" * 32,
    )  # fmt: skip


@pytest.fixture
def reply():
    sums = {"fit.loss": np.array(1.5), "newton.hessian": np.array([[[1.0, 2.0], [2.0, 5.0]]])}
    counts = {"cases": 3, "batches": 2}
    arrays = {"state": dict(STATE), "extra": dict(EXTRA)}
    return Reply("CHUM", sums=sums, counts=counts, seconds=0.5, round=3, order="ab" * 32, **arrays)


def same(a, b):
    for field in fields(a):
        x, y = getattr(a, field.name), getattr(b, field.name)
        if field.name in ("state", "extra"):
            assert list(x) == list(y) and all(torch.equal(x[n], y[n]) and x[n].dtype == y[n].dtype for n in x)
        elif field.name in ("sums", "known"):
            assert list(x) == list(y) and all(np.array_equal(x[n], y[n]) and x[n].dtype == y[n].dtype for n in x)
        else:
            assert x == y, field.name


def test_an_order_says_the_same_either_way(order):
    handed = HandedOrder(order, "evaluate")
    bytes_ = handed.packed()
    same(handed.read(lambda order: ({}, {})), unpack_order(bytes_))
    assert order_id_in(handed) == order_id_in(bytes_) == order_id(bytes_) != HandedOrder(order, "train").order.id
    assert bytes_in(handed) == content_bytes(bytes_)


def test_an_orders_id_is_of_every_value_in_it(order):
    known = {**order.known, "grid": order.known["grid"] + 1}
    others = [replace(order, round=4), replace(order, state={**STATE, "head/b": STATE["head/b"] + 1}),
              replace(order, extra={}), replace(order, known=known), replace(order, since=1)]  # fmt: skip
    assert len({HandedOrder(each, "train").order.id for each in [order, *others]}) == 6


def test_an_order_that_no_bytes_would_be_read_of_is_not_read(order):
    for wrong in (replace(order, mode="a\nb"), replace(order, step=replace(order.step, name="x" * 200))):
        with pytest.raises(WireError):
            unpack_order(HandedOrder(wrong, "train").packed())
        with pytest.raises(WireError):
            HandedOrder(wrong, "train").read(lambda order: ({}, {}))
    with pytest.raises(WireError, match="bfloat16"):
        HandedOrder(replace(order, state={"decoder/w": torch.zeros(2, dtype=torch.bfloat16)}), "train")


def test_a_step_is_a_copy_and_arrays_are_shared_and_watched(order):
    handed = HandedOrder(order, "train")
    read = handed.read(lambda order: ({}, {}))
    assert read.step is not order.step and read.step == order.step
    before = handed.versions()
    assert handed.versions() == before
    read.state["head/b"].add_(1)
    assert handed.versions() != before


def test_a_check_that_fails_fails_at_every_center_and_one_that_passes_is_made_once(order):
    handed, calls = HandedOrder(order, "train"), []

    def check(order):
        calls.append(order.round)
        if len(calls) < 3:
            raise WireError("no")

    for _ in range(2):
        with pytest.raises(WireError):
            handed.check(check)
    handed.check(check)
    handed.check(check)
    assert calls == [3, 3, 3]


def test_a_reply_says_the_same_either_way(reply):
    handed, bytes_ = HandedReply(reply), pack_reply(reply)
    form = form_of(STATE, EXTRA, {"fit.loss": (), "newton.hessian": (1, 2, 2)})
    same(handed.read(form), unpack_reply(bytes_, form))
    assert bytes_in(handed) == content_bytes(bytes_) == reply_facts(reply)["bytes"]
    assert reply_digest(handed.reply) == reply_digest(unpack_reply(bytes_))


@pytest.mark.parametrize("wrong", [
    {"state": {"decoder/x": torch.zeros(2)}}, {"state": {"head/b": torch.zeros(3)}},
    {"state": {"head/b": torch.zeros(2, dtype=torch.float64)}}, {"sums": {"patients": np.array(1.0)}},
    {"sums": {"fit.loss": np.zeros(2)}}, {"extra": {"head/b": torch.zeros(2)}},
])  # fmt: skip
def test_what_nobody_asked_for_is_refused_either_way(reply, wrong):
    form = form_of(STATE, EXTRA, {"fit.loss": (), "newton.hessian": (1, 2, 2)})
    liar = replace(reply, **wrong)
    handed, unpacked = HandedReply(liar).read(form), unpack_reply(pack_reply(liar), form)
    assert handed.code == unpacked.code == "undeclared"
    assert not handed.state and not handed.sums and not handed.extra and handed.told


@pytest.mark.parametrize("wrong", [
    {"center": "a b"}, {"code": "No!"}, {"order": "x"}, {"seconds": float("nan")}, {"counts": {"age": 3}},
    {"counts": {"cases": -1}}, {"round": -1},
])  # fmt: skip
def test_a_status_that_is_none_is_refused_either_way(reply, wrong):
    liar = replace(reply, **wrong)
    with pytest.raises(WireError):
        unpack_reply(pack_reply(liar))
    with pytest.raises(WireError):
        HandedReply(liar).read(None)
