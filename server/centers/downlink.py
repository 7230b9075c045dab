"""The server's end of a compressed link: what each center holds, so that only rounded differences go down.

The state that centers hold is the state: after aggregation the change is rounded, what rounding lost is kept for the
next round, and what everyone can decode is checkpointed, validated and committed. A center that does not hold the state
that a difference refers to (it is new, or was away) gets the whole state once.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch

from common.backbones.base import tensors_digest
from common.config.federation import Compression
from common.config.options import NONE
from common.protocol.compression import applied, compress, decode, difference
from common.protocol.messages import Order, State


@dataclass
class Link:
    """One step's downlink.

    Attributes:
        seeded: names that never travel, because every center makes them from the seed.
        error: what rounding has not said yet; part of the round's checkpoint.
    """

    spec: Compression
    seeded: list[str] = field(default_factory=list)
    error: State = field(default_factory=dict)
    _held: dict[str, str] = field(default_factory=dict)  # center -> digest of the state that it holds
    _change: tuple[str, str, State] | None = None  # digests before and after the last change, and the change

    def advance(self, start: State, new: State) -> State:
        """The state that everyone will hold after this round."""
        if self.spec.kind == NONE:
            return new
        moved = {n: t for n, t in new.items() if n in self.error or not torch.equal(t, start[n])}
        packed = compress(difference(moved, start), self.spec, error=self.error)
        self.error = {name: tensor for name, tensor in packed.error.items() if tensor.any()}
        state = applied(start, decode(packed.wire, moved, self.spec))
        self._change = (tensors_digest(start), tensors_digest(state), packed.wire)
        return state

    def address(self, order: Order, centers: list[str]) -> dict[str, Order]:
        """The order as each center gets it: whole, as a difference, or without arrays where it holds the state."""
        plain = {name: tensor for name, tensor in order.state.items() if name not in self.seeded}
        if self.spec.kind == NONE and not self.seeded:
            return dict.fromkeys(centers, order)
        digest = tensors_digest(order.state)
        whole = replace(order, state=plain, seeded=self.seeded, digest=digest)
        if self.spec.kind == NONE:
            return dict.fromkeys(centers, whole)
        forms = {digest: replace(whole, state={}, reference=digest)}
        if self._change is not None and self._change[1] == digest:
            before, _, wire = self._change
            forms.setdefault(before, replace(whole, state=wire, reference=before))
        return {center: forms.get(self._held.get(center, ""), whole) for center in centers}

    def acknowledge(self, center: str, state_digest: str) -> None:
        """A center answered an order with that state: it holds it now."""
        self._held[center] = state_digest

    def forget(self, center: str) -> None:
        """A center did not answer, or lost what it held: it gets the whole state next."""
        self._held.pop(center, None)
