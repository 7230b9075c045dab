"""Keys of one round: made anew by every center, signed by its enrolled key, bound to what is asked.

All that two centers derive from each other holds the round's context in HKDF's info (run, step, round, digest of the
order, who takes part), so that no mask of one round is one of another, even if keys were used twice by mistake.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

NONCE = bytes(16)  # every key is for one keystream, so the counter starts at 0
SEALED = bytes(12)  # every key seals one message
FEWEST = 3  # honest contributors, below which a sum says too much of each
PIECE = 1 << 16  # bytes of a keystream at a time
KEY, HALF = 32, 66  # bytes of a key, and of each number of a signature (P-521's; P-384's are shorter)
SIGNATURE = 2 * HALF
SAID = 64  # bytes of a signature of a key for one sum


@dataclass(frozen=True)
class Context:
    """What the round is about; the same at every center, or nothing that they derive fits."""

    run: str
    step: str
    round: int
    order: str
    centers: tuple[str, ...]

    @property
    def threshold(self) -> int:
        """How many must stay to the end: two thirds and one, so that a server cannot ask two groups for two halves."""
        return max(2 * len(self.centers) // 3 + 1, FEWEST)

    def bytes(self, purpose: str, *names: str) -> bytes:
        """For HKDF's info and for signatures: one purpose, of these centers."""
        about = [self.run, self.step, self.round, self.order, *self.centers]
        return json.dumps([purpose, len(self.centers), about, *names], separators=(",", ":")).encode()


@dataclass(frozen=True)
class Advert:
    """A center's public keys for one round.

    Args:
        masks: X25519, for masks; its private half is shared and opened where the center drops out.
        seals: X25519, for what is sealed to this center; never opened.
        signs: Ed25519, by which the center signs what it says later in this sum.
        own: SHA-256 of the secret of its own mask, by which wrong shares are noticed.
        signature: of the enrolled key, over the context and all four.
    """

    center: str
    masks: bytes
    seals: bytes
    signs: bytes
    own: bytes
    signature: bytes


def signed_advert(identity: EllipticCurvePrivateKey, context: Context, unsigned: Advert) -> Advert:
    """The keys, signed."""
    return replace(unsigned, signature=signed(identity, _advertised(context, unsigned)))


def is_advert_of(enrolled: EllipticCurvePublicKey, context: Context, advert: Advert) -> bool:
    """Whether a center's own enrolled key signed these keys for this round."""
    is_signed = verifies(enrolled, advert.signature, _advertised(context, advert))
    return is_signed and _is_canonical(advert.masks, advert.seals)


def signed(identity: EllipticCurvePrivateKey, text: bytes) -> bytes:
    """A signature of `SIGNATURE` bytes: ECDSA with SHA-384, by a node's enrolled key (P-384, as Flower has it)."""
    numbers = decode_dss_signature(identity.sign(text, ECDSA(hashes.SHA384())))
    return b"".join(number.to_bytes(HALF, "big") for number in numbers)


def verifies(key: EllipticCurvePublicKey, signature: bytes, text: bytes) -> bool:
    """Whether a signature holds."""
    if len(signature) != SIGNATURE:
        return False
    first, second = (int.from_bytes(signature[at : at + HALF], "big") for at in (0, HALF))
    try:
        key.verify(encode_dss_signature(first, second), text, ECDSA(hashes.SHA384()))
    except InvalidSignature:
        return False
    return True


def says(advert: Advert, signature: bytes, text: bytes) -> bool:
    """Whether the center of these keys has signed a text in this sum."""
    try:
        Ed25519PublicKey.from_public_bytes(advert.signs).verify(signature, text)
    except (InvalidSignature, ValueError):
        return False
    return True


def pair_key(own: X25519PrivateKey, other: bytes, info: bytes) -> bytes:
    """256 bits that two centers derive alike. Raises ValueError for a key of low order."""
    return HKDF(hashes.SHA256(), length=32, salt=None, info=info).derive(
        own.exchange(X25519PublicKey.from_public_bytes(other))
    )


def put_mask(total: np.ndarray, key: bytes, info: bytes, *, off: bool = False) -> None:
    """Add ChaCha20's keystream to unsigned integers in place, or take it off; under a key for this purpose alone.

    In pieces that stay in a core's cache: a keystream as long as an adapter costs most of its time in fresh memory.
    """
    own = HKDF(hashes.SHA256(), length=32, salt=None, info=info).derive(key)
    stream = Cipher(ChaCha20(own, NONCE), mode=None).encryptor()
    zeros, room = bytes(PIECE), bytearray(PIECE)
    mask, step = np.frombuffer(room, total.dtype.newbyteorder("<")), PIECE // total.itemsize
    change = np.subtract if off else np.add
    for at in range(0, len(total), step):
        piece = total[at : at + step]
        stream.update_into(memoryview(zeros)[: piece.nbytes], room)
        change(piece, mask[: len(piece)], out=piece)


def sealed(key: bytes, text: bytes, info: bytes) -> bytes:
    """Text that only whoever derives the key can read, and nobody can change."""
    return ChaCha20Poly1305(key).encrypt(SEALED, text, info)


def opened(key: bytes, text: bytes, info: bytes) -> bytes:
    """The text. Raises ValueError where it was changed, or sealed for another."""
    try:
        return ChaCha20Poly1305(key).decrypt(SEALED, text, info)
    except InvalidTag as error:
        raise ValueError("it was changed, or sealed for another") from error


def digest_of(adverts: Mapping[str, Advert]) -> str:
    """Of all the round's keys: what centers must have seen alike."""
    text = json.dumps([_told(advert) for _, advert in sorted(adverts.items())])
    return hashlib.sha256(text.encode()).hexdigest()


def _advertised(context: Context, advert: Advert) -> bytes:
    return context.bytes("advert", *_told(advert))


def _told(advert: Advert) -> list[str]:
    return [advert.center, *(key.hex() for key in (advert.masks, advert.seals, advert.signs, advert.own))]


def _is_canonical(*keys: bytes) -> bool:
    """X25519 ignores the top bit: two byte strings would be one key."""
    return all(len(key) == KEY and key[-1] < 128 for key in keys)
