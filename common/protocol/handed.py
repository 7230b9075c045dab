"""Handed: orders and replies as themselves, for messages that never leave the process that makes them.

What one says is read by the same rules as its bytes would be: texts, names, types and shapes are compared, a step is
parsed from its own JSON, sums and arrays come in name order and belong to who gets them. A message's id, its counted
bytes and what a center's record says of it do not depend on how it went.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
from flwr.app import RecordDict

from common.errors import WireError
from common.protocol.arrays import (
    MAX_ARRAY_BYTES,
    NUMBERS,
    SUM,
    Form,
    Kind,
    Undeclared,
    check_amount,
    check_kinds,
    encoded_bytes,
    form_of,
    header,
    kind_of,
    numpy_of,
    raw,
)
from common.protocol.messages import Order, Reply, State, Sums
from common.protocol.triangles import packed, unpacked
from common.protocol.wire import (
    LARGE,
    STATUS_COUNTS,
    TOO_MUCH_KNOWN,
    config_of,
    content_bytes,
    identity_of,
    order_id,
    order_of,
    pack_order,
    reply_of,
    status_of,
    with_extra,
)


class HandedOrder(RecordDict):
    """An order in the place of its bytes. Nobody may write to its tensors: every center is handed the same ones."""

    def __init__(self, order: Order, action: str, *, state_digest: str = ""):
        """Args:
        state_digest: of the order's state, where it is known already.
        """
        super().__init__()
        self.action = action
        self._config = config_of(order, action)
        identity = self._config["id"] = identity_of(order, self._config, state_digest=state_digest)
        self.order = replace(order, state=_state(order.state), extra=_state(order.extra), id=identity)
        self._passed: list[Callable[[Order], None]] = []

    def packed(self) -> RecordDict:
        """The same as bytes."""
        return pack_order(self.order, self.action, identity=self.order.id)

    @cached_property
    def nbytes(self) -> int:
        """`content_bytes` of the same as bytes."""
        arrays = with_extra(self.order.state, self.order.extra)
        return _array_bytes(_kinds(arrays)) + _array_bytes(_kinds_of_sums(self.order.known)) + _text_bytes(self._config)

    @cached_property
    def _read(self) -> Order:
        """As a center reads it from bytes; the same for each, so it is read once."""
        order = self.order
        check_amount([with_extra(order.state, order.extra), order.known])
        if sum(np.asarray(value).nbytes for value in order.known.values()) > LARGE:
            raise WireError(TOO_MUCH_KNOWN)
        return replace(order_of(self._config, _traveled(order.known)), state=order.state, extra=order.extra)

    def read(self, declared: Callable[[Order], tuple[State, State]]) -> Order:
        """The order as one center reads it, see `common.protocol.wire.unpack_order`."""
        found = replace(self._read)
        arrays = with_extra(found.state, found.extra)
        if sum(tensor.nbytes for tensor in arrays.values()) > LARGE:
            check_kinds(_kinds(arrays), form_of(*declared(found)).arrays)
        return found

    def check(self, check: Callable[[Order], None]) -> None:
        """Run a check that looks at nothing but the order; what passed once is the same at the next center."""
        if check not in self._passed:
            check(self._read)
            self._passed.append(check)

    def versions(self) -> list[int]:
        """How often each tensor was written to: who is handed the order must leave it as it is."""
        return [tensor._version for tensor in [*self.order.state.values(), *self.order.extra.values()]]


class HandedReply(RecordDict):
    """A reply in the place of its bytes."""

    def __init__(self, reply: Reply):
        """Raises WireError for arrays that do not travel."""
        super().__init__()
        state, extra, counts = _state(reply.state), _state(reply.extra), dict(reply.counts)
        self.reply = replace(reply, state=state, extra=extra, sums=_sums(reply.sums), counts=counts, told="")

    @cached_property
    def nbytes(self) -> int:
        """`content_bytes` of the same as bytes."""
        return _reply_bytes(self.reply)

    def read(self, form: Form | None) -> Reply:
        """The reply as the server reads it, see `common.protocol.wire.unpack_reply`."""
        reply = self.reply
        reply_of(status_of(reply))
        if form is not None:
            try:
                check_kinds(_kinds(with_extra(reply.state, reply.extra)), form.arrays)
                check_kinds(_kinds_of_sums(reply.sums), form.sums)
            except Undeclared as error:
                return replace(reply, state={}, extra={}, sums={}, code=error.code, told=str(error))
        return replace(reply)


def order_id_in(content: RecordDict) -> str:
    """The id of a message's order, packed or handed over."""
    return content.order.id if isinstance(content, HandedOrder) else order_id(content)


def bytes_in(content: RecordDict) -> int:
    """What a message's content counts as on the way, packed or handed over."""
    return content.nbytes if isinstance(content, HandedOrder | HandedReply) else content_bytes(content)


def reply_facts(reply: Reply) -> dict[str, Any]:
    """Names, sizes and a digest of what a reply carries, never its values, for the center's own record of what left."""
    kinds = _kinds(with_extra(reply.state, reply.extra))
    own, names = sum(encoded_bytes(*kind) for kind in kinds.values()), sum(map(len, kinds))
    return {
        "code": reply.code,
        "counts": {name: value for name, value in sorted(reply.counts.items()) if name in STATUS_COUNTS},
        "parts": sorted({name.partition("/")[0] for name in kinds}),
        "arrays": len(kinds),
        "array_bytes": own,
        "sums": sorted(reply.sums),
        "bytes": own + names + _array_bytes(_kinds_of_sums(reply.sums)) + _text_bytes(status_of(reply)),
        "digest": reply_digest(reply),
    }


def reply_digest(reply: Reply) -> str:
    """SHA-256 over every name and value that a reply carries, in name order, as the bytes that travel."""
    digest = hashlib.sha256()
    for name, tensor in sorted(with_extra(reply.state, reply.extra).items()):
        (dtype, shape), values = kind_of(tensor), numpy_of(tensor)
        digest.update(f"arrays|{name}|{dtype}|{shape}|".encode() + header(values.dtype, shape))
        digest.update(raw(values))
    for name, told in sorted(reply.sums.items()):
        values = packed(name, np.asarray(told, np.float64))
        digest.update(f"sums|{name}|{SUM}|{values.shape}|".encode() + header(values.dtype, values.shape))
        digest.update(raw(values))
    digest.update("".join(f"status|{name}|{value!r}|" for name, value in sorted(status_of(reply).items())).encode())
    return digest.hexdigest()


def _reply_bytes(reply: Reply) -> int:
    arrays, sums = _kinds(with_extra(reply.state, reply.extra)), _kinds_of_sums(reply.sums)
    return _array_bytes(arrays) + _array_bytes(sums) + _text_bytes(status_of(reply))


def _kinds(arrays: State) -> dict[str, Kind]:
    return {name: kind_of(tensor) for name, tensor in arrays.items()}


def _kinds_of_sums(sums: Sums) -> dict[str, Kind]:
    """As they travel: symmetric ones as triangles."""
    return {name: (SUM, np.shape(packed(name, np.asarray(value)))) for name, value in sums.items()}


def _array_bytes(kinds: Mapping[str, Kind]) -> int:
    return sum(len(name) + encoded_bytes(*kind) for name, kind in kinds.items())


def _text_bytes(config: Mapping[str, Any]) -> int:
    return sum(len(str(name)) + len(str(value)) for name, value in config.items())


def _state(state: State) -> State:
    """In name order, on the CPU and apart from any graph; the memory stays the same where it can."""
    for name, tensor in state.items():
        if kind_of(tensor)[0] not in NUMBERS or tensor.nbytes > MAX_ARRAY_BYTES:
            raise WireError(f"Array '{name}' is {tensor.dtype}; only numbers of at most 64 bits and 2 GiB travel.")
    return {name: state[name].detach().cpu().contiguous() for name in sorted(state)}


def _traveled(sums: Sums) -> Sums:
    """Copies in name order, as they are on the way: symmetric ones as triangles."""
    return {name: np.array(packed(name, np.asarray(sums[name], np.float64))) for name in sorted(sums)}


def _sums(sums: Sums) -> Sums:
    """Copies in name order, of symmetric ones what their triangle says."""
    return {name: unpacked(name, value) for name, value in _traveled(sums).items()}
