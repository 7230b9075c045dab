"""Checks on every update before it may touch the model: declared names, shapes and dtypes, finite values."""

from __future__ import annotations

import torch

from common.errors import WireError
from common.orders import Reply, State
from common.wire import check_declared


def reason_to_reject(reply: Reply, *, state_like: State, sum_shapes: dict[str, tuple[int, ...]]) -> str | None:
    """Why an update must not be aggregated, as a code; None when it may be."""
    if not reply.is_usable:
        return reply.code
    try:
        check_declared(reply, state_like=state_like, sum_shapes=sum_shapes)
    except WireError:
        return "undeclared"
    if not all(torch.isfinite(tensor).all() for tensor in reply.state.values() if tensor.is_floating_point()):
        return "not_finite"
    return None
