"""T1 to T6: what each LoRA rule keeps of the mean of products, on shapes that are never square."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.adapters.lowrank import trained_tensors
from common.errors import AdapterError
from server.aggregation import Update, aggregate
from server.aggregation.factors import product_norm2, truncate
from tests.server.aggregation.made import (
    COUNTS,
    LAYERS,
    SEEDS,
    draw,
    effective,
    gap,
    generator,
    ideal,
    lora_part,
    lora_state,
    setting,
    shares,
    updates_like,
)

few = settings(max_examples=25, deadline=None)
EXACT = ["ffa", "rolora", "fedsvd", "fedsb", "flora", "fedex"]


def round_of(rule, seed, count, *, dtype=torch.float64, round=1, drift=1.0, **options):
    """One round of a rule from a random start: (aggregated, updates, start, part)."""
    part = lora_part(rule, **options)
    start = lora_state(generator(seed), part, dtype=dtype)
    names = trained_tensors(start, {"within": part}, round=round)
    updates = updates_like(start, seed, count, names=names, drift=drift)
    return aggregate(updates, start, {}, setting(part=part, round=round, seed=seed)), updates, start, part


@pytest.mark.parametrize("rule", EXACT)
@given(seed=SEEDS, count=COUNTS, round=st.integers(1, 4))
@few
def test_t1_exact_rules_give_the_mean_product(rule, seed, count, round):
    done, updates, _, part = round_of(rule, seed, count, round=round)
    assert gap(effective(done.state, part), ideal(updates, part)) < 1e-12
    assert done.report.get("within.missed", 0.0) < 1e-7  # a square root of rounding


@pytest.mark.parametrize("rule", EXACT)
@given(seed=SEEDS, count=COUNTS)
@few
def test_t1_in_float32(rule, seed, count):
    done, updates, start, part = round_of(rule, seed, count, dtype=torch.float32)
    assert gap(effective(done.state, part), ideal(updates, part)) < 1e-6
    assert all(done.state[name].dtype == torch.float32 == start[name].dtype for name in start)


@given(seed=SEEDS, count=COUNTS)
@few
def test_t2_plain_factors_are_off_by_their_cross_covariance(seed, count):
    done, updates, start, part = round_of("fedit", seed, count)
    w, scale = shares(updates), part.alpha / part.rank
    wanted, missed, update = ideal(updates, part), 0.0, 0.0
    before = effective(start, part)
    for layer in LAYERS:
        a, b = ([u.state[f"{layer}.lora_{x}.weight"] for u in updates] for x in "AB")
        mean_a, mean_b = (sum(wi * x for wi, x in zip(w, xs, strict=True)) for xs in (a, b))
        across = scale * sum(wi * (bi - mean_b) @ (ai - mean_a) for wi, ai, bi in zip(w, a, b, strict=True))
        got = effective(done.state, part)[layer]
        assert torch.allclose(wanted[layer] - got, across, atol=1e-12 * float(wanted[layer].norm() + 1))
        missed, update = missed + float(across.norm() ** 2), update + float((wanted[layer] - before[layer]).norm() ** 2)
    assert done.report["within.missed"] == pytest.approx((missed / update) ** 0.5, abs=1e-7)


@pytest.mark.parametrize("common", ["A", "B"])
def test_t2_plain_factors_are_exact_where_one_is_common(common):
    part = lora_part("fedit")
    start = lora_state(generator(3), part)
    moving = [name for name in start if f"lora_{common}" not in name]
    updates = updates_like(start, 3, 6, names=moving)
    done = aggregate(updates, start, {}, setting(part=part))
    assert gap(effective(done.state, part), ideal(updates, part)) < 1e-12


@given(seed=SEEDS, count=COUNTS)
@few
def test_t3_ranks_stay_within_their_bounds_and_every_output_is_the_mean_output(seed, count):
    fedex, updates, _, part = round_of("fedex", seed, count)
    counted = sum(u.weight > 0 for u in updates)
    x = draw(generator(seed + 9), 3, 5)
    layer = "within/blocks.0.qkv"
    wanted = sum(w * x @ effective(u.state, part)[layer].T for w, u in zip(shares(updates), updates, strict=True))
    side = fedex.state[f"{layer}.lora_side_B"] @ fedex.state[f"{layer}.lora_side_A"]
    assert torch.linalg.matrix_rank(side, rtol=1e-10) <= min(part.rank * (counted - 1), 5)
    assert torch.allclose(x @ effective(fedex.state, part)[layer].T, wanted, atol=1e-11)
    flora, updates, _, part = round_of("flora", seed, count)
    side = flora.state[f"{layer}.lora_side_B"] @ flora.state[f"{layer}.lora_side_A"]
    wanted = sum(w * x @ effective(u.state, part)[layer].T for w, u in zip(shares(updates), updates, strict=True))
    assert torch.linalg.matrix_rank(side, rtol=1e-10) <= min(part.rank * counted, 5)
    assert torch.allclose(x @ effective(flora.state, part)[layer].T, wanted, atol=1e-11)
    assert not flora.state[f"{layer}.lora_B.weight"].any()


@pytest.mark.parametrize("rule", ["flora", "fedex"])
@given(seed=SEEDS, count=st.integers(2, 9))
@few
def test_t3_what_a_small_side_factor_cannot_hold_is_reported(rule, seed, count):
    done, updates, start, part = round_of(rule, seed, count, side_rank=1)
    wanted, before, got = ideal(updates, part), effective(start, part), effective(done.state, part)
    assert done.report["within.missed"] == pytest.approx(_off(got, wanted, before), rel=1e-6, abs=1e-7)


def test_a_side_factor_keeps_what_earlier_rounds_put_there():
    part = lora_part("flora")
    state = lora_state(generator(1), part)
    for round in range(1, 5):
        updates = updates_like(state, round, 3, names=trained_tensors(state, {"within": part}, round=round))
        wanted = ideal(updates, part)
        state = aggregate(updates, state, {}, setting(part=part, round=round)).state
        assert gap(effective(state, part), wanted) < 1e-12


@given(seed=SEEDS, count=COUNTS)
@few
def test_t4_flexlora_is_off_by_the_singular_tail_and_never_more_than_plain_factors(seed, count):
    done, updates, start, part = round_of("flexlora", seed, count)
    wanted, got = ideal(updates, part), effective(done.state, part)
    for layer in LAYERS:
        tail = (torch.linalg.svdvals(wanted[layer])[part.rank :] ** 2).sum()
        assert float((got[layer] - wanted[layer]).norm() ** 2) == pytest.approx(float(tail), rel=1e-10, abs=1e-10)
    assert done.report["within.missed"] == pytest.approx(_off(got, wanted, effective(start, part)), rel=1e-6, abs=1e-7)
    plain = aggregate(updates, start, {}, setting(part=lora_part("fedit")))
    assert done.report["within.missed"] <= plain.report["within.missed"] + 1e-7


@given(seed=SEEDS, count=COUNTS)
@few
def test_t5_fedsvd_turns_the_basis_without_changing_the_function(seed, count):
    done, updates, start, part = round_of("fedsvd", seed, count)
    for layer in LAYERS:
        a = done.state[f"{layer}.lora_A.weight"]
        assert torch.allclose(a @ a.T, torch.eye(part.rank, dtype=a.dtype), atol=1e-12)
    kept = lora_part("fedsvd", refresh_every=2)
    at_rest = aggregate(updates, start, {}, setting(part=kept))
    assert torch.equal(at_rest.state["within/blocks.0.qkv.lora_A.weight"], start["within/blocks.0.qkv.lora_A.weight"])
    assert gap(effective(done.state, part), effective(at_rest.state, part)) < 1e-12


def test_t5_momentum_turns_with_the_basis_and_second_moments_start_anew():
    layer, part = "within/blocks.0.qkv", lora_part("fedsvd")
    start = lora_state(generator(5), part)
    updates = updates_like(start, 5, 4, names=[n for n in start if "lora_B" in n])
    resting = lora_part("fedsvd", refresh_every=9)
    before = aggregate(updates, start, {}, setting("fedavgm", part=resting))
    after = aggregate(updates, start, {}, setting("fedavgm", part=part))
    key = f"momentum/{layer}.lora_B.weight"
    turned = after.memory[key] @ after.state[f"{layer}.lora_A.weight"]
    assert torch.allclose(turned, before.memory[key] @ start[f"{layer}.lora_A.weight"], atol=1e-12)
    adam = aggregate(updates, start, {}, setting("fedadam", part=part)).memory
    assert not [name for name in adam if name.startswith("second/") and "lora_B" in name]


@pytest.mark.parametrize("rule", ["flora", "fedex", "flexlora"])
@given(seed=SEEDS, count=COUNTS)
@few
def test_t6_a_change_of_gauge_changes_nothing(rule, seed, count):
    """(B R^-1, R A) is the same update; only rules that look at products can know."""
    done, updates, start, part = round_of(rule, seed, count)
    g = generator(seed + 4)
    turned = []
    for update in updates:
        state = dict(update.state)
        for layer in LAYERS:
            q, _ = torch.linalg.qr(draw(g, 2, 2))
            r = q @ torch.diag(torch.tensor([0.5, 2.0], dtype=torch.float64))
            state[f"{layer}.lora_A.weight"] = r @ state[f"{layer}.lora_A.weight"]
            state[f"{layer}.lora_B.weight"] = state[f"{layer}.lora_B.weight"] @ torch.linalg.inv(r)
        turned.append(Update(update.center, state, update.weight))
    again = aggregate(turned, start, {}, setting(part=part))
    assert gap(effective(again.state, part), effective(done.state, part)) < 1e-10


@pytest.mark.parametrize("rule", ["flora", "flexlora"])
@given(seed=SEEDS, ranks=st.lists(st.integers(1, 3), min_size=1, max_size=6))
@few
def test_centers_may_have_ranks_of_their_own(rule, seed, ranks):
    part = lora_part(rule)
    start = lora_state(generator(seed), part)
    updates = [
        Update(f"C{i}", lora_state(generator(seed + i), lora_part("fedit"), rank=rank), 1.0 + i)
        for i, rank in enumerate(ranks)
    ]
    done = aggregate(updates, start, {}, setting(part=part))
    wanted, got = ideal(updates, part), effective(done.state, part)
    if rule == "flora":
        assert gap(got, wanted) < 1e-12
    for layer in LAYERS if rule == "flexlora" else ():
        tail = (torch.linalg.svdvals(wanted[layer])[part.rank :] ** 2).sum()
        assert float((got[layer] - wanted[layer]).norm() ** 2) == pytest.approx(float(tail), rel=1e-9, abs=1e-10)
    if set(ranks) != {2}:
        with pytest.raises(AdapterError, match="different rank need rule flora or flexlora"):
            aggregate(updates, start, {}, setting(part=lora_part("fedit")))


@given(seed=SEEDS, count=COUNTS)
@few
def test_dora_by_the_exact_stack_is_the_mean_of_the_effective_weights(seed, count):
    done, updates, start, part = round_of("flora", seed, count, dora=True)
    base = setting(seed=seed).base
    assert gap(effective(done.state, part, base), ideal(updates, part, base)) < 1e-11
    again = updates_like(done.state, seed, count, names=trained_tensors(start, {"within": part}, round=2), drift=0.3)
    twice = aggregate(again, done.state, {}, setting(part=part, round=2, seed=seed))
    assert gap(effective(twice.state, part, base), ideal(again, part, base)) < 1e-10


@given(seed=SEEDS, count=st.integers(2, 9))
@few
def test_naive_dora_says_what_it_costs(seed, count):
    done, updates, start, part = round_of("fedit", seed, count, dora=True)
    base = setting(seed=seed).base
    wanted = ideal(updates, part, base)
    off = _off(effective(done.state, part, base), wanted, effective(start, part, base))
    assert done.report["within.missed"] == pytest.approx(off, rel=1e-6, abs=1e-7)
    [note] = done.notes
    assert "Part 'within' is DoRA and averaged as plain factors" in note and "Rule flora is exact." in note
    assert f"missed {100 * done.report['within.missed']:.2g} % of" in note


def test_dora_without_its_frozen_weights_is_refused_or_said_to_be_unknown():
    part = lora_part("flora", dora=True)
    start = lora_state(generator(1), part)
    plain = lora_part("fedit", dora=True)
    bare = setting(part=part)
    bare.base = {}
    with pytest.raises(AdapterError, match=r"needs the frozen weight of 'within/blocks\.0\.qkv'"):
        aggregate(updates_like(start, 1, 3), start, {}, bare)
    bare.parts = {"within": plain}
    start = lora_state(generator(1), plain)
    assert "an unknown share" in aggregate(updates_like(start, 1, 3), start, {}, bare).notes[0]


def test_a_factor_at_rest_is_not_moved_even_when_it_is_sent():
    for rule, still in (("ffa", "lora_A"), ("rolora", "lora_A"), ("fedsb", "lora_B")):
        part = lora_part(rule)
        start = lora_state(generator(2), part)
        done = aggregate(updates_like(start, 2, 5), start, {}, setting("fedavgm", part=part))
        moved = {name.rpartition(".lora_")[2] for name in start if not torch.equal(done.state[name], start[name])}
        assert not any(f"lora_{name}".startswith(still) for name in moved) and len(moved) == 1


@given(seed=SEEDS, rank=st.integers(1, 6))
@few
def test_truncation_is_the_svd_without_the_product(seed, rank):
    g = generator(seed)
    left, right = draw(g, 7, 4), draw(g, 4, 5)
    u, values, v, tail = truncate(left, right, rank=rank)
    dense = torch.linalg.svdvals(left @ right)
    assert torch.allclose(values[:4], dense[: min(rank, 4)], atol=1e-12) and not values[4:].any()
    assert tail == pytest.approx(float((dense[rank:] ** 2).sum()), abs=1e-12)
    assert product_norm2(left, right) == pytest.approx(float((left @ right).norm() ** 2), rel=1e-12)
    assert u.shape == (7, rank) and v.shape == (rank, 5)


def _off(got, wanted, before):
    """The reported share, from dense weights."""
    missed = sum(float((got[n] - wanted[n]).norm() ** 2) for n in LAYERS)
    return (missed / sum(float((wanted[n] - before[n]).norm() ** 2) for n in LAYERS)) ** 0.5
