"""Symmetric sums on the wire: half the bytes, the same numbers, and nothing that hides in the other half."""

from __future__ import annotations

import numpy as np
import pytest

from common.exact.objectives import HESSIAN
from common.exact.ridge import GRAM
from common.protocol.arrays import form_of
from common.protocol.messages import Reply
from common.protocol.triangles import SYMMETRIC, packed, traveling_shape, unpacked
from common.protocol.wire import content_bytes, pack_reply, unpack_reply

SHAPES = {HESSIAN: (2, 5, 5), "newton.loss": (2,)}


def symmetric(seed: int = 0) -> np.ndarray:
    half = np.random.default_rng(seed).normal(size=(2, 5, 5))
    return half + half.transpose(0, 2, 1)


def test_every_symmetric_sum_of_an_exact_fit_is_one():
    assert set(SYMMETRIC) == {HESSIAN, GRAM}


@pytest.mark.parametrize("name", SYMMETRIC)
def test_what_was_packed_comes_back_to_the_bit(name):
    whole = symmetric()
    traveling = packed(name, whole)
    assert traveling.shape == (2, 15) == traveling_shape(name, whole.shape)
    assert np.array_equal(unpacked(name, traveling), whole)


def test_other_sums_stay_as_they_are():
    square = np.arange(4.0).reshape(1, 2, 2)
    assert packed("moments.square", square) is square is unpacked("moments.square", square)


def test_a_reply_carries_the_triangle_and_is_read_as_the_matrix():
    reply = Reply("CHUM", sums={HESSIAN: symmetric(), "newton.loss": np.ones(2)})
    content = pack_reply(reply)
    [array] = [array for name, array in content.array_records["sums"].items() if name == HESSIAN]
    assert tuple(array.shape) == (2, 15) and content_bytes(content) < 700
    found = unpack_reply(content, form_of({}, {}, SHAPES))
    assert found.is_usable and np.array_equal(found.sums[HESSIAN], reply.sums[HESSIAN])


@pytest.mark.parametrize("value", [np.ones((2, 5, 4)), np.ones((2, 4, 4)), np.ones((2, 15, 1)), np.ones(15)])
def test_any_other_form_is_undeclared(value):
    content = pack_reply(Reply("CHUM", sums={HESSIAN: value}))
    assert unpack_reply(content, form_of({}, {}, SHAPES)).code == "undeclared"
    assert unpack_reply(content).sums[HESSIAN].shape != (2, 5, 5), "and without a form it is not read as one"
