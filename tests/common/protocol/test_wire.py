"""Orders and replies cross as Flower records bit for bit, and nothing undeclared crosses at all."""

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto

from common.config.load import compose_run
from common.config.run import BackboneSpec, Split
from common.errors import WireError
from common.protocol.arrays import pack_state, unpack_state
from common.protocol.messages import Order, Reply
from common.protocol.wire import (
    COUNTS_OF,
    STATUS_COUNTS,
    check_declared,
    content_bytes,
    pack_order,
    pack_reply,
    unpack_order,
    unpack_reply,
)

STATE = {"within/a": torch.randn(3, 2), "within/null": torch.zeros(4, 0, 8), "head/n": torch.tensor(3)}


def through_proto(content):
    return recorddict_from_proto(recorddict_to_proto(content))


def an_order(**changes):
    step = compose_run([]).steps["relapse"]
    return Order(step=step, seed=1, round=2, backbone=BackboneSpec(), base="abc", split=Split(), state=STATE, **changes)


def test_an_order_survives_including_zero_size_arrays():
    order = an_order(subset="test", threshold=0.25)
    back = unpack_order(through_proto(pack_order(order)))
    assert all(torch.equal(back.state[name], tensor) for name, tensor in STATE.items())
    assert (back.step, back.threshold, back.subset, back.round) == (order.step, 0.25, "test", 2)


def test_the_base_that_an_order_names_and_a_stage_survive():
    key, root = "a" * 64, "b" * 64
    order = an_order(root=root, merged=[key], stage="c" * 64, parents=[key], grown="d" * 64)
    back = unpack_order(through_proto(pack_order(order)))
    assert (back.root, back.merged, back.stage, back.parents, back.grown) == (
        root, [key], "c" * 64, [key], "d" * 64,
    )  # fmt: skip
    assert "root" not in pack_order(an_order()).config_records["config"], "a base that did not grow costs no byte"


def test_a_reply_survives():
    reply = Reply("CHUM", state=STATE, sums={"cases": np.array([3.0])}, counts={"cases": 3}, seconds=1.5)
    back = unpack_reply(through_proto(pack_reply(reply)))
    assert back.center == "CHUM" and back.sums["cases"] == 3.0 and back.counts == {"cases": 3}
    assert all(torch.equal(back.state[name], tensor) for name, tensor in STATE.items())


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.int64, np.uint8, np.bool_])
@pytest.mark.parametrize("shape", [(), (1,), (0, 3), (5, 7), (2, 3, 4)])
def test_arrays_travel_as_the_bytes_that_numpy_itself_would_write_and_read(shape, dtype):
    values = np.asarray(np.random.default_rng(0).random(shape) * 3).astype(dtype)
    record = pack_state({"x": torch.from_numpy(values)})
    assert record["x"].data == Array(values).data and record["x"].dtype == Array(values).dtype
    np.testing.assert_array_equal(record["x"].numpy(), values)
    assert torch.equal(unpack_state(record)["x"], torch.from_numpy(values))


def test_an_array_whose_columns_come_first_keeps_its_values():
    values = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    assert torch.equal(unpack_state(ArrayRecord({"x": Array(values)}))["x"], torch.from_numpy(values))


@pytest.mark.parametrize("dtype", ["object", "f4,f4", "<U8", "nonsense"])
def test_a_claimed_type_is_never_believed_over_the_data(dtype):
    array = Array(np.arange(3.0))
    whole, empty = (ArrayRecord({"x": Array(dtype, (3,), array.stype, data)}) for data in (array.data, b""))
    for record in (empty, whole):
        with pytest.raises(WireError, match="Array 'x' is not a plain numpy array"):
            unpack_state(record)
    claimed = ArrayRecord({"x": Array("float32", (3,), array.stype, array.data)})
    assert unpack_state(claimed)["x"].dtype == torch.float64


def test_words_are_no_numbers():
    with pytest.raises(WireError, match="only numbers of at most 64 bits travel"):
        unpack_state(ArrayRecord({"x": Array(np.array(["CHUM-001"]))}))


@pytest.mark.parametrize("shape", [(4,), (-3,), (2**62, 2**62)])
def test_a_shape_that_the_data_do_not_fill_is_not_believed(shape):
    array = Array(np.zeros(3))
    claimed = ArrayRecord({"x": Array(array.dtype, shape, array.stype, array.data)})
    assert unpack_state(claimed)["x"].shape == (3,)


def test_bfloat16_is_refused_in_a_sentence():
    with pytest.raises(WireError, match="float32"):
        pack_reply(Reply("A", state={"x": torch.zeros(2, dtype=torch.bfloat16)}))


@pytest.mark.parametrize("status", [{"patient": "CHUM-001"}, {"cases": "many"}, {"cases": -1}])
def test_a_status_holds_only_declared_counts(status):
    content = pack_reply(Reply("CHUM"))
    content["status"] = ConfigRecord(
        {"center": "CHUM", "code": "ok", "seconds": 0.0, "round": 0, "order": "", **status}
    )
    with pytest.raises(WireError, match="counts"):
        unpack_reply(content)


def test_an_error_text_cannot_travel_as_a_code():
    content = pack_reply(Reply("CHUM", code="File /data/CHUM-001 is corrupt"))
    with pytest.raises(WireError, match="well-formed"):
        unpack_reply(content)


def test_an_extra_record_is_refused():
    content = pack_reply(Reply("CHUM"))
    content["images"] = content["arrays"]
    with pytest.raises(WireError, match=r"extra: \['images'\]"):
        unpack_reply(content)


@pytest.mark.parametrize(
    ("reply", "named"),
    [
        (Reply("A", state={"backbone/w": torch.zeros(2)}), "backbone/w"),
        (Reply("A", state={"within/a": torch.zeros(2, 3)}), "within/a"),
        (Reply("A", state={"within/a": torch.zeros(3, 2, dtype=torch.float64)}), "within/a"),
        (Reply("A", sums={"risk_per_patient": np.zeros(7)}), "risk_per_patient"),
    ],
)
def test_undeclared_arrays_and_sums_are_named(reply, named):
    with pytest.raises(WireError, match=named):
        check_declared(reply, state_like=STATE, sum_shapes={"cases": (1,)})


@pytest.mark.parametrize("action", sorted(COUNTS_OF))
def test_every_action_has_its_own_counts(action):
    for name in STATUS_COUNTS:
        reply = Reply("A", counts={name: 1})
        if name in COUNTS_OF[action]:
            check_declared(reply, state_like={}, sum_shapes={}, counts=COUNTS_OF[action])
        else:
            with pytest.raises(WireError, match=f"count '{name}'"):
                check_declared(reply, state_like={}, sum_shapes={}, counts=COUNTS_OF[action])


def test_content_bytes_count_every_array():
    small, large = pack_reply(Reply("A")), pack_reply(Reply("A", state={"x": torch.zeros(1000)}))
    assert 4000 <= content_bytes(large) - content_bytes(small) <= 4200
