"""A center's half of a secure sum. Each method is one phase, in their order; what it raises ends the sum here.

A center believes nothing of the server's that it can check: whose keys these are, that enough take part, that everyone
has signed the same list of survivors, that no part of the sum is of one or two. It gives shares once, for one list.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Collection, Mapping

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from common.errors import PolicyRefusal
from common.privacy.masking.keys import (
    FEWEST,
    KEY,
    SAID,
    Advert,
    Context,
    digest_of,
    is_advert_of,
    opened,
    pair_key,
    put_mask,
    says,
    sealed,
    signed_advert,
)
from common.privacy.masking.shamir import BYTES, shares_of

MASKING = "declined.masking"
OWN_MASK, PAIR_KEY = "own mask", "pair key"
Vectors = dict[str, np.ndarray]  # name -> unsigned integers, (n,)


class MaskingCenter:
    """One center in one secure sum.

    Args:
        identity: the center's enrolled key.
        enrolled: every center's enrolled public key, known from before the round and not from the server.
        kept: what `saved` said after the last phase; absent at the first one.
    """

    def __init__(
        self,
        center: str,
        context: Context,
        identity: EllipticCurvePrivateKey,
        enrolled: Mapping[str, EllipticCurvePublicKey],
        kept: str = "",
    ):
        self.center, self.context = center, context
        self._identity, self._enrolled = identity, dict(enrolled)
        self._masks, self._seals = X25519PrivateKey.generate(), X25519PrivateKey.generate()
        self._signs, self._own_mask = Ed25519PrivateKey.generate(), secrets.token_bytes(KEY)
        self._adverts: dict[str, Advert] = {}
        self._digest = ""  # of these keys
        self._shared: tuple[str, ...] = ()
        self._carried = b""  # what this center has signed about its parts
        self._survivors: dict[str, bytes] = {}
        self._held: dict[str, bytes] = {}  # center -> the shares that it cut for this one
        self._phase = 0
        if kept:
            self._restore(json.loads(kept))
        strangers = sorted({*context.centers} - {*self._enrolled})
        if strangers or center not in context.centers:
            raise self._refusal(f"{', '.join(strangers) or center} is not among the centers enrolled here")
        if len(set(context.centers)) != len(context.centers) or list(context.centers) != sorted(context.centers):
            raise self._refusal("its centers are not one sorted list")
        if len(context.centers) < FEWEST:
            raise self._refusal(f"{len(context.centers)} centers take part; {FEWEST} are the fewest")

    # ------------------------------------------------------------------------------------------------------ the phases

    def advertise(self) -> Advert:
        """Phase 1: public keys for this sum alone."""
        self._enter(1)
        masks, seals = (key.public_key().public_bytes_raw() for key in (self._masks, self._seals))
        signs, own = self._signs.public_key().public_bytes_raw(), hashlib.sha256(self._own_mask).digest()
        unsigned = Advert(self.center, masks, seals, signs, own, b"")
        advert = signed_advert(self._identity, self.context, unsigned)
        self._adverts = {self.center: advert}
        return advert

    def share(self, adverts: Mapping[str, Advert]) -> dict[str, bytes]:
        """Phase 2: both secrets in shares, sealed for each other center that advertised.

        Raises:
            PolicyRefusal: keys that their center did not sign, keys that stand twice, too few centers.
        """
        self._enter(2)
        self._check_adverts(adverts)
        self._adverts, self._digest = dict(adverts), digest_of(adverts)
        cut = [
            shares_of(secret, holders=len(self.context.centers), threshold=self.context.threshold)
            for secret in (self._own_mask, self._masks.private_bytes_raw())
        ]
        found = {}
        for holder in sorted(adverts):
            place = self.context.centers.index(holder)
            text = b"".join(shares[place].to_bytes(BYTES, "big") for shares in cut)
            if holder == self.center:
                self._held[holder] = text
            else:
                key, info = self._seal_key(holder, self.center, holder), self._seal_info(self.center, holder)
                found[holder] = sealed(key, text, info)
        return found

    def mask(self, numbers: Vectors, shared: Collection[str], parts: bytes) -> tuple[Vectors, bytes]:
        """Phase 3: numbers under all masks, and a signature on which parts they hold.

        Args:
            numbers: by name; at every center the same names, types and lengths.
            shared: the centers that have cut their secrets, this one among them.
            parts: a 1 for each part that this center carries, a 0 for each that it does not.

        Raises:
            PolicyRefusal: too few centers shared.
        """
        self._enter(3)
        others = sorted({*shared} - {self.center})
        if {*others} - {*self._adverts} or self.center not in shared or len(others) + 1 < self.context.threshold:
            raise self._refusal(f"{len(others) + 1} centers share their secrets; {self.context.threshold} are needed")
        self._shared = (*others, self.center)
        self._carried = parts + self._signs.sign(self._parts_text(self.center, parts))
        keys = {other: self._pair_key(other) for other in others}
        found = {}
        for name, plain in numbers.items():
            found[name] = total = plain.copy()
            put_mask(total, self._own_mask, self.context.bytes(OWN_MASK, self.center, name))
            for other, key in keys.items():
                put_mask(total, key, pair_info(self.context, self.center, other, name), off=self.center > other)
        return found, self._carried

    def agree(self, survivors: Mapping[str, bytes], received: Mapping[str, bytes]) -> bytes:
        """Phase 4: a signature on the list of those whose numbers came.

        Args:
            survivors: center -> what it has signed about its parts.
            received: what every other center that shared has sealed for this one.

        Raises:
            PolicyRefusal: a list that is none, a part of one or two centers, shares that cannot be opened.
        """
        self._enter(4)
        if not {*survivors} <= {*self._shared} or survivors.get(self.center) != self._carried:
            raise self._refusal("the list of survivors names a center that did not share, or leaves this one out")
        if len(survivors) < self.context.threshold:
            raise self._refusal(f"{len(survivors)} centers answered; {self.context.threshold} are needed")
        self._check_parts(survivors)
        self._survivors = dict(survivors)
        self._open(received)
        return self._signs.sign(survivors_text(self.context, self._digest, self._survivors))

    def reveal(self, signatures: Mapping[str, bytes]) -> dict[str, tuple[str, int]]:
        """Phase 5: of each center that shared, one share: of its own mask if it survived, else of its pair key.

        Raises:
            PolicyRefusal: fewer than the threshold have signed the list that this center has signed.
        """
        self._enter(5)
        text = survivors_text(self.context, self._digest, self._survivors)
        agreed = [c for c in self._survivors if c in signatures and says(self._adverts[c], signatures[c], text)]
        if len(agreed) < self.context.threshold:
            raise self._refusal(
                f"{len(agreed)} centers signed this list of survivors; {self.context.threshold} are needed"
            )
        found = {}
        for center, text in sorted(self._held.items()):
            kind, part = (OWN_MASK, text[:BYTES]) if center in self._survivors else (PAIR_KEY, text[BYTES:])
            found[center] = (kind, int.from_bytes(part, "big"))
        self._held.clear()
        return found

    # ----------------------------------------------------------------------------------------------- between two phases

    @property
    def phase(self) -> int:
        """The last phase that was answered."""
        return self._phase

    @property
    def survivors(self) -> list[str]:
        """Whose list this center has signed."""
        return sorted(self._survivors)

    def saved(self) -> str:
        """All that the next phase needs, secrets among it: for this center's own disk."""
        keys = {"masks": self._masks.private_bytes_raw(), "seals": self._seals.private_bytes_raw()}
        keys |= {"signs": self._signs.private_bytes_raw()}
        keys |= {"own_mask": self._own_mask, "carried": self._carried}
        adverts = {
            center: [text.hex() for text in (a.masks, a.seals, a.signs, a.own, a.signature)]
            for center, a in self._adverts.items()
        }
        return json.dumps(
            {
                "phase": self._phase,
                "about": hashlib.sha256(self.context.bytes("kept")).hexdigest(),
                **{name: value.hex() for name, value in keys.items()},
                "adverts": adverts,
                "shared": list(self._shared),
                "survivors": {center: text.hex() for center, text in self._survivors.items()},
                "held": {center: text.hex() for center, text in self._held.items()},
            }
        )

    def _restore(self, kept: dict) -> None:
        if kept["about"] != hashlib.sha256(self.context.bytes("kept")).hexdigest():
            raise self._refusal("another question, or other centers, than those that it was begun with")
        raw = {name: bytes.fromhex(kept[name]) for name in ("masks", "seals", "signs", "own_mask", "carried")}
        self._masks, self._seals = (X25519PrivateKey.from_private_bytes(raw[name]) for name in ("masks", "seals"))
        self._signs = Ed25519PrivateKey.from_private_bytes(raw["signs"])
        self._own_mask, self._carried = raw["own_mask"], raw["carried"]
        self._adverts = {c: Advert(c, *map(bytes.fromhex, parts)) for c, parts in kept["adverts"].items()}
        self._digest = digest_of(self._adverts)
        self._shared, self._phase = tuple(kept["shared"]), int(kept["phase"])
        self._survivors = {center: bytes.fromhex(text) for center, text in kept["survivors"].items()}
        self._held = {center: bytes.fromhex(text) for center, text in kept["held"].items()}

    # ------------------------------------------------------------------------------------------------------- the checks

    def _check_adverts(self, adverts: Mapping[str, Advert]) -> None:
        if len(adverts) < self.context.threshold or self.center not in adverts:
            raise self._refusal(f"{len(adverts)} centers take part; {self.context.threshold} are needed, this one too")
        for center, advert in sorted(adverts.items()):
            if center not in self.context.centers or advert.center != center:
                raise self._refusal(f"keys in the name of {center}, which takes no part")
            if center != self.center and not is_advert_of(self._enrolled[center], self.context, advert):
                raise self._refusal(f"the keys of {center} are not signed by its enrolled key for this question")
        keys = [key for advert in adverts.values() for key in (advert.masks, advert.seals, advert.signs)]
        if len(set(keys)) < len(keys) or adverts[self.center] != self._adverts.get(self.center):
            raise self._refusal("a key stands twice, or this center's own is another one")

    def _check_parts(self, survivors: Mapping[str, bytes]) -> None:
        """Every survivor has signed its own parts, and no part is of one or two of them."""
        length = len(self._carried) - SAID
        for center, text in sorted(survivors.items()):
            parts, signature = text[:-SAID], text[-SAID:]
            if len(parts) != length or not says(self._adverts[center], signature, self._parts_text(center, parts)):
                raise self._refusal(f"what {center} trained is not signed by its key for this sum")
        few = [at for at in range(length) if 0 < sum(text[at] for text in survivors.values()) < FEWEST]
        if few:
            raise self._refusal(f"{len(few)} parts are of fewer than {FEWEST} centers, and their sum would be theirs")

    def _open(self, received: Mapping[str, bytes]) -> None:
        for other in self._shared:
            if other == self.center:
                continue
            try:
                key = self._seal_key(other, other, self.center)
                self._held[other] = opened(key, received.get(other, b""), self._seal_info(other, self.center))
            except ValueError as error:
                raise self._refusal(f"what {other} sealed cannot be opened ({error})") from error

    def _parts_text(self, center: str, parts: bytes) -> bytes:
        return self.context.bytes("parts", center, parts.hex(), self._digest)

    def _pair_key(self, other: str) -> bytes:
        return pair_secret(self.context, self._masks, self._adverts[other].masks, self.center, other)

    def _seal_key(self, other: str, sender: str, receiver: str) -> bytes:
        return pair_key(self._seals, self._adverts[other].seals, self._seal_info(sender, receiver))

    def _seal_info(self, sender: str, receiver: str) -> bytes:
        return self.context.bytes("share", sender, receiver, self._digest)

    def _enter(self, phase: int) -> None:
        if self._phase != phase - 1:
            raise self._refusal(f"phase {phase} was asked for after phase {self._phase}")
        self._phase = phase

    def _refusal(self, why: str) -> PolicyRefusal:
        self._phase = 9  # whatever is asked of this sum from now on is refused
        return PolicyRefusal(
            MASKING, f"Round {self.context.round} of step '{self.context.step}' is not summed securely: {why}."
        )


def survivors_text(context: Context, digest: str, survivors: Mapping[str, bytes]) -> bytes:
    """What centers sign about who answered, and with which parts.

    Args:
        digest: of the sum's keys.
    """
    named = [f"{center}:{text.hex()}" for center, text in sorted(survivors.items())]
    return context.bytes("survivors", digest, *named)


def pair_info(context: Context, one: str, two: str, name: str) -> bytes:
    """What the mask of two centers is for, which the first of them adds and the second takes away."""
    return context.bytes(PAIR_KEY, *sorted((one, two)), name)


def pair_secret(context: Context, own: X25519PrivateKey, other: bytes, one: str, two: str) -> bytes:
    """What the masks of two centers are made of."""
    return pair_key(own, other, context.bytes(PAIR_KEY, *sorted((one, two))))
