"""Packing leaves every array's bytes as they were, and refuses what it did not make."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from common.errors import WireError
from common.protocol.packing import PACKED, pack, unpack

ARRAYS = st.dictionaries(
    st.text("abc./_", min_size=1, max_size=8),
    arrays(
        st.sampled_from([np.float32, np.float64, np.int64, np.uint8]), array_shapes(min_dims=0, max_dims=3, min_side=0)
    ),
    max_size=4,
)


def content(parts: dict[str, dict[str, np.ndarray]]) -> RecordDict:
    records = {name: ArrayRecord({k: Array(np.asarray(v)) for k, v in part.items()}) for name, part in parts.items()}
    return RecordDict({**records, "status": ConfigRecord({"code": "ok", "cases": 3})})


@given(ARRAYS, ARRAYS)
def test_unpacked_is_what_was_packed(first, second):
    before = content({"arrays": first, "sums": second})
    packed = pack(before)
    assert set(packed) == {PACKED, "status"} and len(packed.array_records[PACKED]) == 1
    after = unpack(packed)
    assert set(after) == set(before) and after["status"] == before["status"]
    for record in ("arrays", "sums"):
        assert list(after.array_records[record]) == list(before.array_records[record])
        for name, array in before.array_records[record].items():
            back = after.array_records[record][name]
            assert (back.dtype, back.shape, back.stype, back.data) == (
                array.dtype,
                array.shape,
                array.stype,
                array.data,
            )


def packed_bytes(change) -> RecordDict:
    packed = pack(content({"arrays": {"a": np.arange(5.0)}}))
    blob = packed.array_records[PACKED][PACKED].numpy().tobytes()
    packed[PACKED] = ArrayRecord({PACKED: Array(np.frombuffer(change(blob), np.uint8))})
    return packed


@pytest.mark.parametrize(
    "change",
    [
        lambda blob: blob[:-1],
        lambda blob: blob + b"x",
        lambda blob: blob[:4],
        lambda blob: b"\xff" * 8 + blob[8:],
        lambda blob: blob.replace(b'"arrays"', b'"airays"'),
    ],
    ids=["shorter", "longer", "cut", "endless header", "other header"],
)
def test_anything_else_is_refused(change):
    with pytest.raises(WireError, match="cannot be read"):
        unpack(packed_bytes(change))


def test_unpacked_content_is_refused_where_packed_is_expected():
    with pytest.raises(WireError, match="not packed"):
        unpack(content({"arrays": {}}))
