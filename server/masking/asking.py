"""SecureSum: one question put to several centers in the five phases of a secure sum; the answer is their sum alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from torch import Tensor

from common.errors import RoundFailed, WireError
from common.privacy.masking.asked import (
    AGREE,
    KEYS,
    MASK,
    REVEAL,
    SHARE,
    Masking,
    advert_bytes,
    advert_of,
    hexed,
    shares_in,
)
from common.privacy.masking.center import Vectors
from common.privacy.masking.keys import FEWEST, SAID, Advert, Context
from common.privacy.masking.server import check_enough, unmasked
from common.protocol.masked import PARTS, QUESTION, from_tensors, phase_form, question_of
from common.protocol.messages import TOO_FEW_CASES, Order, State
from server.centers.federation import Federation, Traffic, added

INCOMPLETE = "incomplete"
FIT_GUARDS_OFF = [
    "plausibility of single centers' sums",
    "whether a center's sums are of one function",
    "whose loss rose where a fit does not settle",
]
"""Guards of an exact fit that look at one center's sums: there are none to look at."""


class SecureSum:
    """One question's secure sum.

    Attributes:
        failed: center -> code, of those that a phase lost.
        bytes: of the four phases in which no patient is looked at.
    """

    def __init__(self, federation: Federation, order: Order, centers: Iterable[str], *, most: float):
        """Args:
        order: with its whole state, as every center will have it.
        most: the largest weight that a center may have.
        """
        self.federation, self.most = federation, most
        question = question_of(order, most)
        self.context = Context(order.run, order.step.name, order.round, question, tuple(sorted(centers)))
        self.failed: dict[str, str] = {}
        self.bytes: Traffic = {}
        self._bare = replace(order, state={}, extra={}, known={}, seeded=[])
        self._adverts: dict[str, Advert] = {}
        self._sealed: dict[str, dict[str, bytes]] = {}  # sender -> receiver -> what is sealed

    def begin(self) -> Masking:
        """Phases 1 and 2; what the order to mask must bring. Raises RoundFailed where too few are left."""
        said = self._keys()
        if without := {center for center, code in self.failed.items() if code == TOO_FEW_CASES}:
            # who has nothing to tell never took part: keys are made anew, for the others alone
            self.context = replace(self.context, centers=tuple(c for c in self.context.centers if c not in without))
            said = self._keys()
        centers = self.context.centers
        self._adverts = {center: advert_of(center, _bytes(array)) for center, array in said.items()}
        check_enough(self.context, self._adverts, phase="giving their keys")
        said = self._ask(self._masking(SHARE), self._adverts)
        for sender, array in said.items():
            rows = zip(centers, array.numpy(), strict=True)
            self._sealed[sender] = {receiver: row.tobytes() for receiver, row in rows}
        check_enough(self.context, self._sealed, phase="sharing their secrets")
        return self._masking(MASK)

    def _keys(self) -> dict[str, Tensor]:
        centers = self.context.centers
        if len(centers) < FEWEST:
            raise RoundFailed(f"{len(centers)} centers take part, and a secure sum is of {FEWEST} or more.")
        return self._ask(self._masking(KEYS), centers)

    def finish(self, masked: Mapping[str, State]) -> tuple[Vectors, list[bool]]:
        """Phases 4 and 5: the sum of the survivors' numbers, and which of the step's parts it holds.

        Args:
            masked: the extras of those replies that the server can use.

        Raises:
            RoundFailed: too few are left, a part is of one or two centers, or shares do not fit.
        """
        check_enough(self.context, masked, phase="masking")
        carried = {center: _bytes(extra[PARTS]) for center, extra in sorted(masked.items())}
        tellers = [sum(flags) for flags in zip(*(text[:-SAID] for text in carried.values()), strict=True)]
        if few := [count for count in tellers if 0 < count < FEWEST]:
            raise RoundFailed(
                f"{len(few)} of the step's parts were trained by fewer than {FEWEST} centers, whose own numbers a sum "
                "would be; nothing was opened. Let more centers train them, or leave these parts out of the step."
            )
        agree = self._masking(AGREE, carried=hexed(carried))
        orders = {center: replace(agree, sealed=hexed(self._sealed_for(center))) for center in masked}
        signatures = {center: _bytes(array) for center, array in self._ask_each(orders).items()}
        check_enough(self.context, signatures, phase="agreeing on who answered")
        said = self._ask(self._masking(REVEAL, signatures=hexed(signatures)), signatures)
        revealed = {center: shares_in(self.context.centers, array.numpy()) for center, array in said.items()}
        numbers = {center: from_tensors(extra) for center, extra in sorted(masked.items())}
        total = unmasked(self.context, self._adverts, self._sealed, numbers, revealed)
        return total, [count > 0 for count in tellers]

    def _masking(
        self, phase: str, *, carried: dict[str, str] | None = None, signatures: dict[str, str] | None = None
    ) -> Masking:
        adverts = {c: advert_bytes(advert) for c, advert in self._adverts.items()} if phase == SHARE else {}
        return Masking(
            phase,
            list(self.context.centers),
            self.context.order,
            self.most,
            adverts=hexed(adverts),
            shared=sorted(self._sealed),
            carried=carried or {},
            signatures=signatures or {},
        )

    def _sealed_for(self, center: str) -> dict[str, bytes]:
        return {sender: own[center] for sender, own in self._sealed.items() if sender != center}

    def _ask(self, masking: Masking, centers: Iterable[str]) -> dict[str, Tensor]:
        return self._ask_each(dict.fromkeys(centers, masking))

    def _ask_each(self, maskings: Mapping[str, Masking]) -> dict[str, Tensor]:
        """What each center answers to a phase; whoever does not is out."""
        orders = {id(masking): replace(self._bare, masking=masking) for masking in maskings.values()}
        exchange = self.federation.ask_each({c: orders[id(masking)] for c, masking in maskings.items()}, QUESTION)
        self.bytes = added(self.bytes, exchange.bytes)
        (name,) = phase_form(next(iter(maskings.values())))
        found = {}
        for center in sorted(maskings):
            reply = exchange.replies.get(center)
            if reply is not None and reply.is_usable and name in reply.extra:
                found[center] = reply.extra[name]
            else:
                self.failed[center] = INCOMPLETE if reply is None or reply.is_usable else reply.code
        return found


def _bytes(array: Tensor) -> bytes:
    text: bytes = array.numpy().tobytes()
    if array.dtype.itemsize != 1:
        raise WireError(f"Bytes of a secure sum came as {array.dtype}.")
    return text
