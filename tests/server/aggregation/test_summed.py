"""A secure sum hands every sum-only rule one update for each part, with the mean and the weight of its centers: what
the rule makes of it is what it makes of all of them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.adapters.lowrank import trained_tensors
from common.config.compatibility import SUM_ONLY
from server.aggregation import Update, aggregate
from server.aggregation.mean import mean
from tests.server.aggregation.made import draw, generator, lora_part, lora_state, setting, updates_like


def summed(updates, start):
    """One update for each part."""
    parts = sorted({name.partition("/")[0] for name in start})
    whole, found = mean(updates, start=start), []
    for part in parts:
        carriers = [u for u in updates if any(n.startswith(f"{part}/") for n in u.state)]
        names = [n for n in start if n.startswith(f"{part}/") and n in carriers[0].state]
        found.append(Update(f"sum of {part}", {n: whole[n] for n in names}, sum(u.weight for u in carriers)))
    return found


@pytest.mark.parametrize("kind", sorted(SUM_ONLY - {"scaffold"}))
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_every_sum_only_rule_makes_the_same_of_the_sum(kind, seed):
    g = generator(seed)
    start = {"a/w": draw(g, 3, 4), "b/w": draw(g, 5)}
    updates = updates_like(start, seed, 5, zeros=False)
    for update in updates[:2]:
        del update.state["b/w"]  # two centers without that part
    rule = setting(kind)
    rule.total_weight = 2.0 * sum(update.weight for update in updates)
    one, two, memories = start, start, ({}, {})
    for _ in range(2):
        first, second = (
            aggregate(updates, one, memories[0], rule),
            aggregate(summed(updates, two), two, memories[1], rule),
        )
        one, two, memories = first.state, second.state, (first.memory, second.memory)
    assert all(torch.allclose(one[n], two[n], rtol=1e-9, atol=1e-9) for n in start)


@pytest.mark.parametrize("rule", ["ffa", "rolora", "fedsvd", "fedsb", "fedit"])
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_every_exact_rule_of_low_rank_factors_makes_the_same_of_the_sum(rule, seed):
    part = lora_part(rule)
    start = lora_state(generator(seed), part)
    how = setting("mean", part=part)
    names = trained_tensors(start, how.parts, round=1)
    updates = updates_like(start, seed, 4, names=names, zeros=False)
    for update in updates:
        update.state = {n: t for n, t in update.state.items() if n in names}
    one, two = aggregate(updates, start, {}, how), aggregate(summed(updates, start), start, {}, how)
    a, b = (state["within/blocks.0.qkv.lora_B.weight"] @ state["within/blocks.0.qkv.lora_A.weight"]
            for state in (one.state, two.state))  # fmt: skip
    assert torch.allclose(a, b, rtol=1e-7, atol=1e-7)
