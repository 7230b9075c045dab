"""A secure sum is the plain sum whoever drops out; what a lying server asks for is refused, and nothing is opened."""

import dataclasses
import itertools
import math
import secrets

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from common.errors import PolicyRefusal, RoundFailed, WireError
from common.privacy.masking.center import OWN_MASK, PAIR_KEY, MaskingCenter
from common.privacy.masking.keys import SAID, Advert, Context, signed_advert
from common.privacy.masking.numbers import (
    Form,
    decoded,
    decoded_exactly,
    decoded_sums,
    encoded,
    encoded_exactly,
    encoded_sums,
)
from common.privacy.masking.server import check_enough, unmasked

SEVEN = tuple(f"H{number}" for number in range(7))
PHASES = ("advertise", "share", "mask", "agree")  # what a center does last
IDENTITIES = {center: ec.generate_private_key(ec.SECP384R1()) for center in SEVEN}
ENROLLED = {center: key.public_key() for center, key in IDENTITIES.items()}


def context_of(number=1, centers=SEVEN):
    return Context("run", "tumor", number, "0" * 64, tuple(centers))


def centers_of(context):
    return {c: MaskingCenter(c, context, IDENTITIES[c], ENROLLED) for c in context.centers}


def after(phase, gone, centers):
    """Who is left when these centers do one phase last."""
    return {c: own for c, own in centers.items() if c not in gone or PHASES.index(gone[c]) >= PHASES.index(phase)}


def told_to(center, sealed):
    return {sender: own[center] for sender, own in sealed.items() if center in own}


def kept_and_read(own):
    """The center in another process: all that it knows is what it wrote."""
    return MaskingCenter(own.center, own.context, IDENTITIES[own.center], ENROLLED, own.saved())


def masked_of(centers, numbers, gone, parts=b"\x01"):
    """Phases 1 to 3; what each center says and, as `carried`, what the survivors have signed."""
    adverts = {c: own.advertise() for c, own in centers.items()}
    sealed = {c: own.share(adverts) for c, own in after("share", gone, centers).items()}
    said = {
        c: own.mask({"update": numbers[c]}, sealed, parts if isinstance(parts, bytes) else parts[c])
        for c, own in after("mask", gone, centers).items()
    }
    return adverts, sealed, {c: vectors for c, (vectors, _) in said.items()}, {c: own for c, (_, own) in said.items()}


def agreed(own, carried, sealed):
    return own.agree(carried, told_to(own.center, sealed))


def summed(context, numbers, gone=None):
    """The whole round; ``gone`` says what a center that drops out does last."""
    gone, centers = gone or {}, centers_of(context)
    adverts, sealed, masked, carried = masked_of(centers, numbers, gone)
    check_enough(context, masked, phase="masking")
    centers = {c: kept_and_read(own) for c, own in centers.items()}
    signed = {c: agreed(own, carried, sealed) for c, own in after("agree", gone, centers).items()}
    revealed = {c: kept_and_read(own).reveal(signed) for c, own in centers.items() if c not in gone}
    return unmasked(context, adverts, sealed, masked, revealed)["update"], sorted(masked), revealed


def random_numbers(length=5):
    return {center: np.frombuffer(secrets.token_bytes(4 * length), np.uint32) for center in SEVEN}


@pytest.mark.parametrize("every", [11, pytest.param(1, marks=pytest.mark.slow)])
def test_any_two_of_seven_drop_out_at_any_phase_and_the_sum_stands(every):
    pairs, phases_of_both = itertools.combinations(SEVEN, 2), itertools.product(PHASES, PHASES)
    context, cases = context_of(), itertools.product(pairs, phases_of_both)
    for pair, phases in itertools.islice(cases, 0, None, every):
        numbers, gone = random_numbers(), dict(zip(pair, phases, strict=True))
        total, survivors, revealed = summed(context, numbers, gone)
        plain = np.zeros(5, np.uint32)
        for center in survivors:
            plain = plain + numbers[center]
        assert (total == plain).all() and len(survivors) == 7 - sum(p in ("advertise", "share") for p in phases)
        for center in SEVEN:
            kinds = {own[center][0] for own in revealed.values() if center in own}
            assert kinds <= {OWN_MASK if center in survivors else PAIR_KEY}, "never both secrets of one center"


@pytest.mark.parametrize("phase", PHASES)
def test_three_of_seven_drop_out_and_nothing_is_opened(phase):
    context, centers, gone = context_of(), centers_of(context_of()), dict.fromkeys(SEVEN[:3], phase)
    if phase == "advertise":
        refused(lambda: masked_of(centers, random_numbers(), gone), "4 centers share their secrets; 5 are needed")
        return
    adverts, sealed, masked, carried = masked_of(centers, random_numbers(), gone)
    if phase == "share":
        with pytest.raises(RoundFailed, match=r"\d of 7 centers are left after masking, and a secure sum needs 5"):
            check_enough(context, masked, phase="masking")
        return
    signed = {c: agreed(own, carried, sealed) for c, own in after("agree", gone, centers).items()}
    revealed = {}
    for own in (own for c, own in centers.items() if c not in gone):
        try:
            revealed[own.center] = own.reveal(signed)
        except PolicyRefusal:
            continue
    assert phase == "agree" or not revealed, "four signatures are not five"
    with pytest.raises(RoundFailed, match="nothing was opened"):
        check_enough(context, revealed, phase="revealing")
    with pytest.raises(RoundFailed):
        unmasked(context, adverts, sealed, masked, revealed)


def test_the_weighted_mean_is_the_plain_one_to_a_ten_thousandth_of_its_length():
    rng = np.random.default_rng(0)
    form = Form(bound=8 * 0.01, most=500.0, contributors=7)
    deltas = {c: rng.normal(0, 0.01, 2000) for c in SEVEN}
    weights = dict(zip(SEVEN, (18, 55, 72, 198, 30, 41, 500), strict=True))
    total, _, _ = summed(context_of(), {c: encoded(form, deltas[c], weights[c]) for c in SEVEN})
    mean, weight = decoded(form, total)
    plain = sum(weights[c] * deltas[c].clip(-0.08, 0.08) for c in SEVEN) / sum(weights.values())
    assert np.linalg.norm(mean - plain) < 1e-4 * np.linalg.norm(plain)
    assert weight == pytest.approx(sum(weights.values()), rel=1e-6)


def test_numbers_at_the_bound_never_wrap_around():
    form = Form(bound=1.0, most=1.0, contributors=7)
    for sign in (1.0, -1.0):
        total = np.zeros(4, np.uint32)
        for _ in range(7):
            total = total + encoded(form, np.full(3, sign * 9.0), 1.0)
        mean, weight = decoded(form, total)
        assert mean == pytest.approx(np.full(3, sign)) and weight == pytest.approx(7.0)
    with pytest.raises(WireError, match="not finite"):
        encoded(form, np.array([np.nan]), 1.0)
    assert not encoded(form, np.ones(2), 0.0).any(), "who has no weight says nothing"
    for weight in (-1.0, 1.5):
        with pytest.raises(WireError, match="a weight of"):
            encoded(form, np.zeros(2), weight)
    with pytest.raises(WireError, match="masks are left in it"):
        decoded(form, np.zeros(3, np.uint32))


def test_sums_of_losses_and_scores_are_exact_to_a_hundred_millionth_each():
    rng = np.random.default_rng(1)
    said = [rng.normal(0, 10.0, 50) * 10.0 ** rng.integers(-3, 6, 50) for _ in range(7)]
    counts = [np.rint(values) for values in said]
    for parts, error in ((said, 7 * 2**-27), (counts, 0.0)):
        total = np.zeros(50, np.uint64)
        for values in parts:
            total = total + encoded_sums(values, 7)
        assert np.abs(decoded_sums(total) - sum(parts)).max() <= error + 1e-9 * (error > 0)
    for wrong in (np.inf, np.nan, 1e11):
        with pytest.raises(WireError, match="is not masked"):
            encoded_sums(np.array([wrong]), 7)


def test_what_the_server_sees_holds_no_update_and_no_mask_twice():
    """Numbers of zero show the masks themselves: over rounds and centers no two of them are alike, nor their sums."""
    zeros, seen = {c: np.zeros(400, np.uint32) for c in SEVEN}, []
    for number in (1, 2):
        _, _, masked, _ = masked_of(centers_of(context_of(number)), zeros, {})
        seen += [vectors["update"] for vectors in masked.values()]
    for one, other in itertools.combinations(seen, 2):
        assert (one == other).mean() < 0.01 and (one + other == 0).mean() < 0.01
    assert all((mask == 0).mean() < 0.01 for mask in seen)
    bits = np.unpackbits(np.concatenate(seen).view(np.uint8))
    assert abs(bits.mean() - 0.5) < 0.005


# ------------------------------------------------------------------------------------------------------ a lying server


def advert(identity, context, center, *, masks=bytes([1] * 32)):
    other = [bytes([byte] * 32) for byte in (2, 3, 0)]
    return signed_advert(identity, context, Advert(center, masks, *other, b""))


def refused(what, match):
    with pytest.raises(PolicyRefusal, match=match) as refusal:
        what()
    assert refusal.value.code == "declined.masking"


def test_keys_that_their_center_did_not_sign_are_refused():
    context, intruder = context_of(), ec.generate_private_key(ec.SECP384R1())
    for change in (
        lambda adverts: adverts | {"H1": advert(intruder, context, "H1")},
        lambda adverts: adverts | {"H1": dataclasses.replace(adverts["H1"], masks=bytes([9] * 32))},
        lambda adverts: adverts | {"H1": dataclasses.replace(adverts["H1"], center="H2")},
        lambda adverts: adverts | {"H1": advert(IDENTITIES["H1"], context_of(2), "H1")},
        lambda adverts: adverts | {"H1": advert(IDENTITIES["H1"], context, "H1", masks=adverts["H2"].masks)},
        lambda adverts: adverts | {"H0": advert(IDENTITIES["H0"], context, "H0")},
        lambda adverts: dict(list(adverts.items())[:4]),
        lambda adverts: {c: advert for c, advert in adverts.items() if c != "H0"},
    ):
        centers = centers_of(context)
        adverts = change({c: own.advertise() for c, own in centers.items()})
        refused(lambda adverts=adverts, own=centers["H0"]: own.share(adverts), "is not summed securely")


def test_a_server_that_shows_other_keys_to_some_is_noticed():
    """Both sets are signed, of two runs of one round: who trained under one has not signed it for the other."""
    context = context_of()
    centers, twin = centers_of(context), MaskingCenter("H6", context, IDENTITIES["H6"], ENROLLED)
    adverts = {c: own.advertise() for c, own in centers.items()}
    other = adverts | {"H6": twin.advertise()}
    sealed = {c: own.share(other if c == "H1" else adverts) for c, own in centers.items()}
    carried = {c: own.mask({"update": np.zeros(3, np.uint32)}, sealed, b"\x01")[1] for c, own in centers.items()}
    refused(lambda: agreed(centers["H0"], carried, sealed), "what H1 trained is not signed by its key")
    del carried["H1"]
    refused(lambda: agreed(centers["H2"], carried, sealed), "what H1 sealed cannot be opened")


def test_a_server_that_lies_about_survivors_gets_no_shares():
    context, numbers = context_of(), random_numbers()
    centers = centers_of(context)
    _, sealed, _, carried = masked_of(centers, numbers, {})
    without = {c: text for c, text in carried.items() if c != "H6"}
    lists = {c: without if c in SEVEN[:4] else carried for c in SEVEN[:6]}  # two stories of H6
    signed = {c: agreed(centers[c], lists[c], sealed) for c in SEVEN[:6]}
    for center in SEVEN[:6]:
        refused(lambda own=centers[center]: own.reveal(signed), "centers signed this list of survivors; 5 are needed")
    refused(lambda: agreed(centers["H6"], without, sealed), "leaves this one out")


@pytest.mark.parametrize(
    ("survivors", "match"),
    [(SEVEN[:4], "4 centers answered; 5 are needed"), ((*SEVEN, "H9"), "names a center that did not share")],
)
def test_a_list_of_survivors_that_is_none_is_not_signed(survivors, match):
    centers = centers_of(context_of())
    _, sealed, _, carried = masked_of(centers, random_numbers(), {})
    listed = {c: carried.get(c, carried["H1"]) for c in survivors}
    refused(lambda: agreed(centers["H0"], listed, sealed), match)


def test_a_part_of_one_or_two_centers_is_not_summed():
    """Of seven, two have a PET: the sum of its part would be theirs alone. What they say of it cannot be changed."""
    parts = {c: bytes([1, int(c in SEVEN[:2])]) for c in SEVEN}
    centers = centers_of(context_of())
    _, sealed, _, carried = masked_of(centers, random_numbers(), {}, parts)
    refused(lambda: agreed(centers["H0"], carried, sealed), "1 parts are of fewer than 3 centers")
    lie = carried | {"H4": b"\x01\x01" + carried["H4"][-SAID:]}
    refused(lambda: agreed(centers["H1"], lie, sealed), "what H4 trained is not signed")
    parts["H2"] = b"\x01\x01"
    centers = centers_of(context_of())
    _, sealed, _, carried = masked_of(centers, random_numbers(), {}, parts)
    assert len(agreed(centers["H0"], carried, sealed)) == SAID


def test_shares_are_given_once_and_phases_come_in_order():
    centers = centers_of(context_of())
    refused(lambda: centers["H1"].mask({}, SEVEN, b""), "phase 3 was asked for after phase 0")
    centers = centers_of(context_of())
    _, sealed, _, carried = masked_of(centers, random_numbers(), {})
    refused(lambda: centers["H1"].mask({}, SEVEN, b""), "phase 3 was asked for after phase 3")
    centers = centers_of(context_of())
    _, sealed, _, carried = masked_of(centers, random_numbers(), {})
    signed = {c: agreed(own, carried, sealed) for c, own in centers.items()}
    centers["H0"].reveal(signed)
    refused(lambda: centers["H0"].reveal(signed), "phase 5 was asked for after phase 5")
    refused(lambda: agreed(centers["H0"], carried, sealed), "was asked for after")


def test_too_few_centers_are_no_secure_sum():
    assert [context_of(centers=SEVEN[:n]).threshold for n in range(3, 8)] == [3, 3, 4, 5, 5]
    pair, three = context_of(centers=SEVEN[:2]), context_of(centers=SEVEN[:3])
    refused(lambda: MaskingCenter("H0", pair, IDENTITIES["H0"], ENROLLED), "2 centers take part; 3 are the fewest")
    own = MaskingCenter("H0", three, IDENTITIES["H0"], ENROLLED)
    advert = own.advertise()
    refused(lambda: own.share({"H0": advert}), "1 centers take part; 3 are needed")
    known = {"H0": ENROLLED["H0"]}
    refused(lambda: MaskingCenter("H0", three, IDENTITIES["H0"], known), "H1, H2 is not among the centers enrolled")
    twisted = context_of(centers=("H1", "H0", "H2"))
    refused(lambda: MaskingCenter("H0", twisted, IDENTITIES["H0"], ENROLLED), "one sorted")


def test_changed_shares_are_noticed():
    context, centers = context_of(), centers_of(context_of())
    adverts, sealed, masked, carried = masked_of(centers, random_numbers(), {"H6": "share"})
    signed = {c: agreed(centers[c], carried, sealed) for c in masked}
    revealed = {c: dict(centers[c].reveal(signed)) for c in masked}
    for changed, match in (("H6", "of another key than it advertised"), ("H1", "of another mask than it announced")):
        kind, share = revealed["H0"][changed]
        with pytest.raises(RoundFailed, match=match):
            unmasked(context, adverts, sealed, masked, revealed | {"H0": revealed["H0"] | {changed: (kind, share ^ 1)}})
        with pytest.raises(RoundFailed, match=f"The masks of {changed} in round 1 stay on"):
            wrong = revealed | {"H0": revealed["H0"] | {changed: (kind, share + 2**400)}}
            unmasked(context, adverts, sealed, masked, wrong)


def test_sums_of_an_exact_fit_are_those_of_float64():
    """Of numbers from 1e-9 to 1e9, of either sign: nothing is lost but what float64 itself rounds in the total."""
    rng = np.random.default_rng(5)
    parts = [rng.normal(size=200) * 10.0 ** rng.uniform(-9, 9, 200) for _ in SEVEN]
    total = np.sum([encoded_exactly(part, 7) for part in parts], axis=0, dtype=np.uint64)
    exact = np.array([math.fsum(numbers) for numbers in zip(*parts, strict=True)])
    largest = np.abs(parts).max(axis=0)
    assert (np.abs(decoded_exactly(total) - exact) <= 4e-16 * largest + 7 * 2.0**-73).all()
    for wrong in (np.array([np.nan]), np.array([1e12])):
        with pytest.raises(WireError, match=r"beyond 6\.28\d*e\+11, is not masked"):
            encoded_exactly(wrong, 7)
