"""One table over all rules: what the round loop builds on, whichever rule a step names."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save

from common.adapters.lowrank import LORA_RULES, trained_tensors
from common.config.compatibility import BOUNDS, clashes, least_updates
from common.config.federation import FEDERATIONS
from common.errors import AdapterError, TooFewUpdates
from common.protocol.weights import weight_of
from server.aggregation import RULES, Setting, Update, aggregate
from tests.server.aggregation.made import SEEDS, draw, generator, lora_part, lora_state, same, setting, weights_of

few = settings(max_examples=12, deadline=None)
TABLE = [
    pytest.param(kind, rule, id=f"{kind}-{rule}")
    for kind, rule in product(sorted(RULES), LORA_RULES)
    if not clashes(FEDERATIONS[kind](), {"within": lora_part(rule)})
]
KEEPS_ONE = ["mean", "median", "trimmed_mean", "geometric_median", "norm_clip", "centered_clip"]
KEEPS_EQUALS = [*KEEPS_ONE, "krum", "multi_krum", "bulyan"]


def start_of(seed: int, rule: str, *, dtype=torch.float32):
    g = generator(seed)
    dense = {"decoder/w": draw(g, 3, 4, dtype=dtype), "stem/b": draw(g, 5, dtype=dtype)}
    return dict(sorted({**dense, **lora_state(g, lora_part(rule), dtype=dtype)}.items()))


def updates_of(start, setting: Setting, seed: int, count: int, *, lacking: int = 0) -> list[Update]:
    """Updates of this round's tensors; the first ``lacking`` centers have no stem."""
    g = generator(seed + 1)
    names = trained_tensors(start, setting.parts, round=setting.round)
    updates = []
    for i, weight in enumerate(weights_of(seed, count, zeros=False)):
        state = {n: start[n] + 0.1 * draw(g, *start[n].shape, dtype=start[n].dtype) for n in start if n in names}
        extra = {f"control/{n}": 0.1 * draw(g, *start[n].shape, dtype=start[n].dtype) for n in state}
        carried = {n: t for n, t in state.items() if i >= lacking or not n.startswith("stem/")}
        updates.append(Update(f"C{i}", carried, weight, extra))
    return updates


def setting_of(kind: str, rule: str, *, round: int = 1, **options) -> Setting:
    if kind in BOUNDS:
        options = {"faulty": 1, **options}
    return setting(kind, part=lora_part(rule), round=round, **options)


@pytest.mark.parametrize(("kind", "rule"), TABLE)
@given(seed=SEEDS, order=st.randoms())
@few
def test_finite_same_form_and_blind_to_the_order_of_replies(kind, rule, seed, order):
    chosen, start = setting_of(kind, rule), start_of(seed, rule)
    updates = updates_of(start, chosen, seed, 7)
    done = aggregate(updates, start, {}, chosen)
    assert {n: (t.shape, t.dtype) for n, t in done.state.items()} == {n: (t.shape, t.dtype) for n, t in start.items()}
    assert all(torch.isfinite(t).all() for t in [*done.state.values(), *done.memory.values()])
    assert all(math.isfinite(value) for value in done.report.values())
    shuffled = list(updates)
    order.shuffle(shuffled)
    again = aggregate(shuffled, start, {}, chosen)
    assert same(again.state, done.state) and same(again.memory, done.memory) and again.report == done.report


@pytest.mark.parametrize(("kind", "rule"), TABLE)
def test_updates_and_start_are_left_as_they_were(kind, rule):
    chosen, start = setting_of(kind, rule), start_of(1, rule)
    updates = updates_of(start, chosen, 1, 7)
    kept = [{n: t.clone() for n, t in u.state.items()} for u in updates], {n: t.clone() for n, t in start.items()}
    first = aggregate(updates, start, {}, chosen)
    remembered = {n: t.clone() for n, t in first.memory.items()}
    aggregate(updates, start, first.memory, chosen)
    assert all(same(u.state, before) for u, before in zip(updates, kept[0], strict=True))
    assert same(start, kept[1]) and same(first.memory, remembered)


@pytest.mark.parametrize("kind", sorted(RULES))
def test_a_part_is_aggregated_over_the_centers_that_have_it_and_stays_where_none_has(kind):
    chosen, start = setting_of(kind, "rolora"), start_of(2, "rolora")
    all_but = updates_of(start, chosen, 2, 9, lacking=2)
    done = aggregate(all_but, start, {}, chosen)
    own = {n: t for n, t in start.items() if n.startswith("stem/")}
    alone = aggregate(
        [replace(u, state={n: u.state[n] for n in own}) for u in all_but[2:]],
        own,
        {},
        replace(chosen, total_weight=sum(u.weight for u in all_but)),
    )
    assert torch.equal(done.state["stem/b"], alone.state["stem/b"])
    assert not torch.equal(done.state["stem/b"], start["stem/b"])
    none = aggregate(updates_of(start, chosen, 2, 9, lacking=9), start, {}, chosen)
    assert torch.equal(none.state["stem/b"], start["stem/b"])
    assert torch.equal(none.state["within/blocks.0.qkv.lora_A.weight"], start["within/blocks.0.qkv.lora_A.weight"])
    assert not any("stem/" in name or "lora_A" in name for name in none.memory)


@pytest.mark.parametrize("kind", sorted(RULES))
def test_memory_survives_a_save_bit_for_bit(kind):
    """Three rounds in one go, and three rounds with everything on disk in between."""
    ends = []
    for stored in (False, True):
        state, memory = start_of(3, "rolora"), {}
        for round in range(1, 4):
            chosen = setting_of(kind, "rolora", round=round)
            done = aggregate(updates_of(state, chosen, round, 7), state, memory, chosen)
            state, memory = done.state, done.memory
            if stored:
                state, memory = (dict(sorted(load(save(d)).items())) for d in (state, memory))
        ends.append((state, {name: memory[name] for name in sorted(memory)}))
    assert same(ends[0][0], ends[1][0]) and same(ends[0][1], ends[1][1])


@pytest.mark.parametrize("kind", KEEPS_EQUALS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@given(seed=SEEDS)
@few
def test_t7_equal_updates_come_back_exactly(kind, dtype, seed):
    chosen, start = setting_of(kind, "rolora"), start_of(seed, "rolora", dtype=dtype)
    [one] = updates_of(start, chosen, seed, 1)
    alike = [replace(one, center=f"C{i}", weight=1.0 + i) for i in range(7)]
    assert same(aggregate(alike, start, {}, chosen).state, {**start, **one.state})


@pytest.mark.parametrize("kind", KEEPS_ONE)
def test_t7_one_center_alone_comes_back_exactly(kind):
    chosen = setting_of(kind, "rolora", **({"faulty": 0} if kind in BOUNDS else {}))
    start = start_of(4, "rolora")
    [one] = updates_of(start, chosen, 4, 1)
    assert same(aggregate([one], start, {}, chosen).state, {**start, **one.state})


@pytest.mark.parametrize("kind", sorted(RULES))
@given(seed=SEEDS, by=st.floats(1e-3, 1e3))
@few
def test_t7_only_the_proportions_of_weights_count(kind, seed, by):
    chosen, start = setting_of(kind, "ffa"), start_of(seed, "ffa", dtype=torch.float64)
    updates = updates_of(start, chosen, seed, 7)
    done = aggregate(updates, start, {}, chosen).state
    scaled = aggregate([replace(u, weight=u.weight * by) for u in updates], start, {}, chosen).state
    assert all(torch.allclose(done[name], scaled[name], atol=1e-8) for name in start)


@pytest.mark.parametrize("kind", sorted(RULES))
def test_an_update_of_weight_zero_counts_nowhere(kind):
    chosen, start = setting_of(kind, "rolora"), start_of(5, "rolora")
    updates = updates_of(start, chosen, 5, 7)
    wild = replace(updates[3], center="C35", state={n: t * 1e9 for n, t in updates[3].state.items()}, weight=0.0)
    assert same(aggregate([*updates, wild], start, {}, chosen).state, aggregate(updates, start, {}, chosen).state)
    if kind not in BOUNDS:
        idle = [replace(u, weight=0.0) for u in updates]
        assert same(aggregate(idle, start, {}, chosen).state, start)


@pytest.mark.parametrize("kind", sorted(BOUNDS))
@pytest.mark.parametrize("faulty", [0, 1, 2])
def test_too_few_updates_are_refused_with_the_numbers(kind, faulty):
    chosen, start = setting_of(kind, "rolora", faulty=faulty), start_of(6, "rolora")
    least = least_updates(kind, faulty)
    aggregate(updates_of(start, chosen, 6, least), start, {}, chosen)
    if least == 1:
        return
    with pytest.raises(TooFewUpdates) as refusal:
        aggregate(updates_of(start, chosen, 6, least - 1), start, {}, chosen)
    said = str(refusal.value)
    assert f"Rule {kind} withstands {faulty} faulty centers among at least" in said
    assert f"= {least}, but {least - 1} updates carry decoder, stem, within: the round is void" in said


@pytest.mark.parametrize("kind", sorted(BOUNDS))
def test_a_part_that_too_few_carry_stays_as_nobody_had_it(kind):
    chosen, start = setting_of(kind, "rolora"), start_of(6, "rolora")
    least = least_updates(kind, 1)
    done = aggregate(updates_of(start, chosen, 6, least, lacking=1), start, {}, chosen)
    without = aggregate(updates_of(start, chosen, 6, least, lacking=least), start, {}, chosen)
    assert same(done.state, without.state) and torch.equal(done.state["stem/b"], start["stem/b"])
    assert not torch.equal(done.state["decoder/w"], start["decoder/w"]) and not without.notes
    assert f"= {least}, but {least - 1} updates carry stem: that stays as it was." in done.notes[0]
    with pytest.raises(TooFewUpdates, match=r"updates carry decoder, within and \d+ updates carry stem: the round"):
        aggregate(updates_of(start, chosen, 6, least - 1, lacking=1), start, {}, chosen)


def test_updates_that_do_not_belong_are_refused():
    chosen, start = setting_of("mean", "rolora"), start_of(7, "rolora")
    updates = updates_of(start, chosen, 7, 3)
    with pytest.raises(AdapterError, match="update of C1 comes after the one of C1"):
        aggregate([updates[1], updates[1]], start, {}, chosen)
    for weight in (-1.0, math.nan, math.inf):
        with pytest.raises(AdapterError, match="weights are 0 or more"):
            aggregate([replace(updates[0], weight=weight)], start, {}, chosen)
    with pytest.raises(AdapterError, match="carries 'new/w', which the step does not have"):
        aggregate([replace(updates[0], state={"new/w": torch.zeros(1)})], start, {}, chosen)
    for kind in ("mean", "median", "fedadam"):
        wide = replace(updates[0], state={**updates[0].state, "stem/b": torch.zeros(6)})
        with pytest.raises(AdapterError, match=r"'stem/b' of shape \(6,\), expected \(5,\)"):
            aggregate([wide, *updates[1:]], start, {}, setting_of(kind, "rolora"))


def test_rules_that_cannot_work_with_a_lora_part_are_refused():
    for kind, rule, why in (
        ("median", "flora", "by products of factors .rule flora., federation median works on single tensors"),
        ("scaffold", "fedsvd", "a new basis each round"),
    ):
        start = start_of(8, rule)
        with pytest.raises(AdapterError, match=why):
            aggregate(updates_of(start, setting_of(kind, rule), 8, 7), start, {}, setting_of(kind, rule))


def test_weights_come_from_registered_cases():
    assert weight_of(FEDERATIONS["mean"](), 16) == 4.0
    assert weight_of(FEDERATIONS["mean"](weighting="n"), 16) == 16.0
    assert weight_of(FEDERATIONS["geometric_median"](weighting="uniform"), 16) == 1.0
    assert weight_of(FEDERATIONS["krum"](), 16) == 1.0
    assert weight_of(FEDERATIONS["krum"](), 0) == 0.0


def test_every_federation_has_a_rule_and_every_rule_a_federation():
    assert set(RULES) | {"newton"} == set(FEDERATIONS)  # newton adds sums and solves: it aggregates no updates
