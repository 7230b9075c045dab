"""What a secure sum says on the wire: with an order what centers said before, with a reply bytes of a fixed form.

Replies are arrays whose names, types and shapes are known before anybody is asked; orders carry text, since who took
part so far is not known before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from common.errors import WireError
from common.privacy.masking.center import OWN_MASK, PAIR_KEY
from common.privacy.masking.keys import KEY, SAID, SIGNATURE, Advert
from common.privacy.masking.shamir import BYTES

PHASES = KEYS, SHARE, MASK, AGREE, REVEAL = ("keys", "share", "mask", "agree", "reveal")
ADVERT = 4 * KEY + SIGNATURE  # bytes
SEALED = 2 * BYTES + 16  # two shares and what says that nobody changed them
KINDS = ("", OWN_MASK, PAIR_KEY)


@dataclass
class Masking:
    """What an order says of the secure sum that it belongs to."""

    phase: str = ""  # of PHASES; the third travels with the order to train or to score itself
    centers: list[str] = field(default_factory=list)  # who was asked, in the order of codes
    question: str = ""  # digest of what is asked, whoever is asked
    most: float = 1.0  # the largest weight that a center may have
    adverts: dict[str, str] = field(default_factory=dict)  # center -> its keys, signed
    shared: list[str] = field(default_factory=list)  # who has cut its secrets into shares
    sealed: dict[str, str] = field(default_factory=dict)  # agree: center -> what it sealed for the one that is asked
    carried: dict[str, str] = field(default_factory=dict)  # agree: survivor -> the parts that it trained, signed
    signatures: dict[str, str] = field(default_factory=dict)  # reveal: center -> its signature on the survivors


def reply_shapes(phase: str, centers: int) -> dict[str, tuple[int, ...]]:
    """Name -> shape of the bytes that an answer to a phase holds."""
    shapes: dict[str, dict[str, tuple[int, ...]]] = {
        KEYS: {"masking/keys": (ADVERT,)},
        SHARE: {"masking/sealed": (centers, SEALED)},
        AGREE: {"masking/signature": (SAID,)},
        REVEAL: {"masking/shares": (centers, 1 + BYTES)},
    }
    return shapes.get(phase, {})


def advert_bytes(advert: Advert) -> bytes:
    """A center's keys as they travel."""
    return advert.masks + advert.seals + advert.signs + advert.own + advert.signature


def advert_of(center: str, text: bytes) -> Advert:
    """The keys of a center. Raises WireError for bytes that are none."""
    if len(text) != ADVERT:
        raise WireError(f"The keys of a center are {ADVERT} bytes, these are {len(text)}.")
    masks, seals, signs, own = (text[at : at + KEY] for at in range(0, 4 * KEY, KEY))
    return Advert(center, masks, seals, signs, own, text[4 * KEY :])


def sealed_rows(centers: Sequence[str], sealed: Mapping[str, bytes]) -> np.ndarray:
    """(centers, `SEALED`) bytes: a row for each receiver, zeros where there is none."""
    return _rows(centers, sealed, SEALED)


def share_rows(centers: Sequence[str], shares: Mapping[str, tuple[str, int]]) -> np.ndarray:
    """(centers, 1 + share) bytes: of whom, which secret's, and the share."""
    texts = {c: bytes([KINDS.index(kind)]) + share.to_bytes(BYTES, "big") for c, (kind, share) in shares.items()}
    return _rows(centers, texts, 1 + BYTES)


def shares_in(centers: Sequence[str], rows: np.ndarray) -> dict[str, tuple[str, int]]:
    """The shares that such rows hold; a kind that is none is left out."""
    texts = {center: row.tobytes() for center, row in zip(centers, rows, strict=True)}
    return {
        center: (KINDS[text[0]], int.from_bytes(text[1:], "big"))
        for center, text in texts.items()
        if 0 < text[0] < len(KINDS)
    }


def unhexed(texts: Mapping[str, str]) -> dict[str, bytes]:
    """Bytes of an order's texts. Raises WireError for one that is no hexadecimal number."""
    try:
        return {center: bytes.fromhex(text) for center, text in texts.items()}
    except ValueError as error:
        raise WireError("What an order brings of a secure sum is no hexadecimal number.") from error


def hexed(texts: Mapping[str, bytes]) -> dict[str, str]:
    """Bytes as an order's texts."""
    return {center: text.hex() for center, text in sorted(texts.items())}


def _rows(centers: Sequence[str], texts: Mapping[str, bytes], length: int) -> np.ndarray:
    rows = np.zeros((len(centers), length), np.uint8)
    for place, center in enumerate(centers):
        if center in texts:
            rows[place] = np.frombuffer(texts[center], np.uint8)
    return rows
