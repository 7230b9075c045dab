"""What a reply must be before the server uses it."""

import numpy as np
import pytest
import torch

from common.orders import Reply
from server.screening import missing_in_scores, missing_in_update, reason_to_reject

STATE = {"decoder/a": torch.zeros(2), "decoder/b": torch.zeros(3), "stem/a": torch.zeros(1)}
SHAPES = {"fit.loss": (), "fit.cases": (), "fit.batches": (), "volumes": (2,)}
FIT = {name: np.array(1.0) for name in ("fit.loss", "fit.cases", "fit.batches")}
COUNTS = {"cases": 3, "batches": 2}


def rejected(reply):
    return reason_to_reject(reply, state_like=STATE, sum_shapes=SHAPES)


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (Reply("A", state=STATE, sums=FIT), None),
        (Reply("A", state={"stem/a": torch.zeros(1)}), None),
        (Reply("A", code="declined.task"), "declined.task"),
        (Reply("A", state={"stem/a": torch.tensor([np.nan])}), "not_finite"),
        (Reply("A", state={"stem/a": torch.tensor([-np.inf])}), "not_finite"),
        (Reply("A", sums={"volumes": np.array([1.0, np.nan])}), "not_finite"),
        (Reply("A", state={"stem/b": torch.zeros(1)}), "undeclared"),
        (Reply("A", sums={"volumes": np.zeros(3)}), "undeclared"),
    ],
)
def test_a_reply_is_used_or_has_a_reason(reply, reason):
    assert rejected(reply) == reason


@pytest.mark.parametrize(
    ("state", "sums", "counts", "reason"),
    [
        (STATE, FIT, COUNTS, None),
        ({n: t for n, t in STATE.items() if n.startswith("decoder")}, FIT, COUNTS, None),  # a center without PET
        ({"decoder/a": torch.zeros(2)}, FIT, COUNTS, "incomplete"),
        ({}, FIT, COUNTS, "incomplete"),
        (STATE, {}, COUNTS, "incomplete"),
        (STATE, FIT, {"cases": 3}, "incomplete"),
    ],
)
def test_an_update_has_whole_parts_its_fit_and_its_counts(state, sums, counts, reason):
    assert missing_in_update(Reply("A", state=state, sums=sums, counts=counts), state_like=STATE) == reason


@pytest.mark.parametrize(
    ("names", "reason"),
    [([], None), (["fit.loss", "fit.cases", "volumes"], None), (["fit.loss", "volumes"], "incomplete")],
)
def test_scores_are_whole_or_suppressed(names, reason):
    sums = {name: np.zeros(SHAPES[name]) for name in names}
    assert missing_in_scores(Reply("A", sums=sums), sum_shapes=SHAPES) == reason
