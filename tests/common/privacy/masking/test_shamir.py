"""Shares give the secret at the threshold and nothing below it; values of another library agree."""

import itertools

import pytest

from common.privacy.masking.shamir import PRIME, secret_from, shares_of

SECRET = bytes(range(32))
OTHER = (
    int(
        "1b9b0684c09982f29c952d39b6fea11e513ab75aaf33bcf34d4a1c7bf29870b449b3b874024fcf4d76a778bf46"
        "132180a50188392459af3f7b974e4a38e8b2ee2f1",
        16,
    ),
    int(
        "97a5ddf5931024a329c8bf0d2147595fb3371967e80fb66ec78ab0cc4bd24e474fb4bef7352af4f1da7453bcf7"
        "937bc6baba0a97b1c9edcf04214f95723d7adb30",
        16,
    ),
    int(
        "e7f6ade769eea0000d0dbde879ac628b58d5b306cf153fc9048823aff19716ba6b4b34d7d18bad62e921a5b788"
        "f720b372c59aedef2780e9a0fedcffd67be2fbb6",
        16,
    ),
    int(
        "62e9cc8e89f22d57f4241a3db18fed649544b8692c374ff55d3f6e502323ab999e49d51314c2cc070cd05c3007"
        "7197be042c51d5a65aa145b22578f091764efbeb",
        16,
    ),
    int(
        "2af6d5da1d112545f5646c99d44aedc90fcc4d8216b2263c492dc3f0665f4d29fb66eb5a961a04899ffee66a9c"
        "651a5162ff7504912ab891d1e378733f43ac55c0",
        16,
    ),
)


def test_every_five_of_seven_give_the_secret_and_four_are_refused():
    shares = dict(enumerate(shares_of(SECRET, holders=7, threshold=5), start=1))
    for five in itertools.combinations(shares.items(), 5):
        assert secret_from(dict(five), threshold=5, length=32) == SECRET
    with pytest.raises(ValueError, match="4 shares, where 5 are needed"):
        secret_from(dict(list(shares.items())[:4]), threshold=5, length=32)


def test_a_share_that_was_changed_or_of_another_holder_gives_no_secret():
    shares = dict(enumerate(shares_of(SECRET, holders=7, threshold=5), start=1))
    for changed in (shares | {1: shares[1] + 2**400}, shares | {1: shares[2], 2: shares[1]}):
        with pytest.raises(ValueError, match="of no secret of this length"):
            secret_from(changed, threshold=5, length=32)


def test_shares_of_another_library_are_of_the_same_secret():
    """`shamirs` 4.0 on this secret, seven holders, threshold 5, modulus 2^521 - 1; holders 1 to 5."""
    assert secret_from(dict(enumerate(OTHER, start=1)), threshold=5, length=32) == SECRET


def test_fewer_shares_than_the_threshold_fit_every_secret():
    """Perfect secrecy: with four of five shares every secret has exactly one polynomial, so a fifth share that fits."""
    shares = dict(list(enumerate(shares_of(SECRET, holders=7, threshold=5), start=1))[:4])
    for secret in (0, 1, 2**255):
        fifth = _completing(shares, secret)
        assert secret_from(shares | {5: fifth}, threshold=5, length=32) == secret.to_bytes(32, "big")


def _completing(shares, secret):
    """The share of holder 5 with which these four are of this secret: Lagrange through zero and the four."""
    points = {0: secret} | shares
    total = 0
    for place, value in points.items():
        above = below = 1
        for other in points:
            if other != place:
                above, below = above * (5 - other) % PRIME, below * (place - other) % PRIME
        total += value * above * pow(below, -1, PRIME)
    return total % PRIME


@pytest.mark.parametrize(("holders", "threshold", "length"), [(3, 4, 32), (3, 0, 32), (3, 2, 65)])
def test_sharing_that_cannot_be_is_an_error(holders, threshold, length):
    with pytest.raises(ValueError, match="a secret of"):
        shares_of(bytes(length), holders=holders, threshold=threshold)
