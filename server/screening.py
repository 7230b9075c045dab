"""Checks on every reply before the server uses it: declared names, shapes and dtypes, all of them, finite values."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from common.errors import WireError
from common.orders import Reply, State
from common.wire import FIT_SUMS, check_declared


def reason_to_reject(reply: Reply, *, state_like: State, sum_shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """Why a reply must not be used, as a code; None when it may be."""
    if not reply.is_usable:
        return reply.code
    try:
        check_declared(reply, state_like=state_like, sum_shapes=sum_shapes)
    except WireError:
        return "undeclared"
    floats = [tensor for tensor in reply.state.values() if tensor.is_floating_point()]
    if not all(torch.isfinite(t).all() for t in floats) or not all(np.isfinite(v).all() for v in reply.sums.values()):
        return "not_finite"
    return None


def missing_in_update(reply: Reply, *, state_like: State) -> str | None:
    """``incomplete`` for an update without whole parts, its fit sums or its counts; parts may be absent altogether."""
    sent = {name.partition("/")[0] for name in reply.state}
    whole = {name for name in state_like if name.partition("/")[0] in sent}
    counted = {"cases", "batches"} <= set(reply.counts) and set(FIT_SUMS) <= set(reply.sums)
    return None if sent and whole == set(reply.state) and counted else "incomplete"


def missing_in_scores(reply: Reply, *, sum_shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """``incomplete`` for scores that are neither suppressed (no sums at all) nor whole."""
    wanted = set(sum_shapes) - {"fit.batches"}
    return None if not reply.sums or wanted <= set(reply.sums) else "incomplete"
