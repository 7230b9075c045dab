"""Shamir's secret sharing over a prime field: any threshold of shares gives the secret, fewer say nothing of it."""

from __future__ import annotations

import secrets
from collections.abc import Mapping

PRIME = 2**521 - 1  # a Mersenne prime, above every 256-bit secret
BYTES = 66  # of a share


def shares_of(secret: bytes, *, holders: int, threshold: int) -> list[int]:
    """Shares for holders 1, 2, ..., in that order.

    Args:
        secret: at most 64 bytes.

    Raises:
        ValueError: a secret too long, or a threshold that no holders can meet.
    """
    if len(secret) > 64 or not 1 <= threshold <= holders:
        raise ValueError(f"a secret of {len(secret)} bytes, or a threshold of {threshold} for {holders} holders")
    polynomial = [int.from_bytes(secret, "big"), *(secrets.randbelow(PRIME) for _ in range(threshold - 1))]
    return [_at(polynomial, holder) for holder in range(1, holders + 1)]


def secret_from(shares: Mapping[int, int], *, threshold: int, length: int) -> bytes:
    """The secret of this many bytes, from the shares of enough holders.

    Raises:
        ValueError: fewer shares than the threshold, or shares that are of no such secret.
    """
    if len(shares) < threshold:
        raise ValueError(f"{len(shares)} shares, where {threshold} are needed")
    chosen = dict(sorted(shares.items())[:threshold])
    value = sum(share * _basis(holder, chosen) for holder, share in chosen.items()) % PRIME
    if value >= 1 << (8 * length):
        raise ValueError("the shares are of no secret of this length")
    return value.to_bytes(length, "big")


def _at(polynomial: list[int], place: int) -> int:
    value = 0
    for coefficient in reversed(polynomial):
        value = (value * place + coefficient) % PRIME
    return value


def _basis(holder: int, others: Mapping[int, int]) -> int:
    """Lagrange's basis polynomial of a holder, at zero."""
    above, below = 1, 1
    for other in others:
        if other != holder:
            above, below = above * other % PRIME, below * (other - holder) % PRIME
    return above * pow(below, -1, PRIME)
