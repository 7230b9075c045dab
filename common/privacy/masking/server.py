"""The server's half of a secure sum: it hands on, adds up, and takes the masks off the sum once shares allow it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from common.errors import RoundFailed
from common.privacy.masking.center import OWN_MASK, PAIR_KEY, Vectors, pair_info, pair_secret
from common.privacy.masking.keys import KEY, Advert, Context, put_mask
from common.privacy.masking.shamir import secret_from

Revealed = Mapping[str, Mapping[str, tuple[str, int]]]  # who reveals -> of whom -> which secret's share


def check_enough(context: Context, centers: Mapping[str, object], *, phase: str) -> None:
    """Raise RoundFailed where too few are left for the round to end: nothing is opened then."""
    if len(centers) < context.threshold:
        raise RoundFailed(
            f"Round {context.round} of step '{context.step}': {len(centers)} of {len(context.centers)} centers are "
            f"left after {phase}, and a secure sum needs {context.threshold}. The round is void; nothing was opened."
        )


def unmasked(
    context: Context,
    adverts: Mapping[str, Advert],
    shared: Mapping[str, object],
    masked: Mapping[str, Vectors],
    revealed: Revealed,
) -> Vectors:
    """The sum of the survivors' numbers, by name.

    Args:
        shared: the centers that shared their secrets, by name.
        masked: the numbers of the centers that survived.

    Raises:
        RoundFailed: too few shares, or shares that are of other secrets.
    """  # fmt: skip
    check_enough(context, masked, phase="masking")
    check_enough(context, revealed, phase="revealing")
    total = _added(masked)
    for center in sorted(masked):
        secret = _secret(context, center, OWN_MASK, revealed)
        if hashlib.sha256(secret).digest() != adverts[center].own:
            raise RoundFailed(f"The shares of {center} in round {context.round} are of another mask than it announced.")
        for name, values in total.items():
            put_mask(values, secret, context.bytes(OWN_MASK, center, name), off=True)
    for dropped in sorted(set(shared) - set(masked)):
        key = X25519PrivateKey.from_private_bytes(_secret(context, dropped, PAIR_KEY, revealed))
        if key.public_key().public_bytes_raw() != adverts[dropped].masks:
            raise RoundFailed(
                f"The shares of {dropped} in round {context.round} are of another key than it advertised."
            )
        for center in sorted(masked):
            secret = pair_secret(context, key, adverts[center].masks, center, dropped)
            _take_off(total, context, secret, center, dropped)
    return total


def _added(masked: Mapping[str, Vectors]) -> Vectors:
    first, *others = masked.values()
    total = {name: values.copy() for name, values in first.items()}
    for numbers in others:
        for name, values in total.items():
            values += numbers[name]
    return total


def _take_off(total: Vectors, context: Context, secret: bytes, center: str, dropped: str) -> None:
    """The mask that a survivor has put on for one that dropped out."""
    for name, values in total.items():
        put_mask(values, secret, pair_info(context, center, dropped, name), off=center < dropped)


def _secret(context: Context, center: str, kind: str, revealed: Revealed) -> bytes:
    shares = {
        context.centers.index(holder) + 1: own[center][1]
        for holder, own in revealed.items()
        if center in own and own[center][0] == kind
    }
    try:
        return secret_from(shares, threshold=context.threshold, length=KEY)
    except ValueError as error:
        raise RoundFailed(f"The masks of {center} in round {context.round} stay on: {error}.") from error
