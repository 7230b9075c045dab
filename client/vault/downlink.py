"""The center's end of a link: states made whole from the seed and the vault, updates rounded with what is owed kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from client.vault.vault import Vault
from common.backbones.base import tensors_digest
from common.config.options import NONE
from common.errors import WireError
from common.protocol.compression import applied, compress, decode, difference
from common.protocol.messages import Order, State

ERROR = "error"  # the vault's shelf


def received(order: Order, vault: Vault, *, initial: Callable[[], State]) -> Order:
    """The order with its whole state: seeded tensors made here, a difference added to what it refers to.

    Args:
        initial: the step's state as the seed makes it.

    Raises:
        ReferenceMissing: when the vault lacks that; the server then sends the state whole.
        WireError: when the result is not the state that the server means.
    """
    spec = order.step.federation.compression
    state = dict(order.state)
    if order.reference:
        before = vault.reference(order.reference)
        moved = {name: tensor for name, tensor in before.items() if name in order.state}
        state = applied(before, decode(order.state, moved, spec))
    elif order.seeded:
        made = initial()
        state |= {name: made[name] for name in order.seeded}
    if tensors_digest(state) != order.digest:
        raise WireError("The state made from the seed and the vault is not the server's; install the same release.")
    if spec.kind != NONE:
        vault.keep_reference(order.digest, state)
    return replace(order, state=state, reference="", digest="", seeded=[])


def outgoing(order: Order, leaving: State, vault: Vault) -> State:
    """What travels for the trained tensors; what rounding loses is kept for the next round."""
    spec = order.step.federation.compression
    if spec.kind == NONE:
        return leaving
    owed = vault.load(ERROR, since=order.since)
    packed = compress(difference(leaving, order.state), spec, error=owed)
    vault.save(ERROR, {**owed, **packed.error}, order=order)
    return packed.wire
