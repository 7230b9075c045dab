"""Merging against golden values, in updates and not in factors."""

import pytest
import torch

from common.config.adapter import Adapter, LoraPart
from common.config.methods.continual import MergeMethod
from common.config.step import Step
from common.config.task import ClassificationTask
from server.methods.merging import combined, effective, merged, ties, trimmed

VECTORS = [
    torch.tensor(rows, dtype=torch.float64)
    for rows in (
        [[0.9, -0.2, 0.1], [0.0, 0.5, -0.6]],
        [[0.7, 0.4, -0.3], [0.2, -0.1, -0.8]],
        [[-0.8, 0.3, 0.2], [0.1, 0.6, 0.05]],
    )
]
LAYER = "within/blocks.0.q"
A, B, HEAD = f"{LAYER}.lora_A.weight", f"{LAYER}.lora_B.weight", "head/weight"


@pytest.mark.parametrize(
    ("density", "golden"),
    [(1.0, [[0.8, 0.35, -0.3], [0.15, 0.55, -0.7]]), (0.5, [[0.8, 0.35, 0.0], [0.0, 0.55, -0.7]])],
)
def test_ties_gives_the_golden_values_of_peft_with_total_signs(density, golden):
    assert torch.allclose(ties(VECTORS, density=density), torch.tensor(golden, dtype=torch.float64), atol=1e-12)


def test_the_average_is_the_golden_one_and_ties_at_density_1_is_not_it():
    average = combined(VECTORS, MergeMethod(how="average"))
    golden = torch.tensor([[0.2667, 0.1667, 0.0], [0.1, 0.3333, -0.45]], dtype=torch.float64)
    assert (average - golden).abs().max() < 5e-5
    assert (average - ties(VECTORS, density=1.0)).abs().max() > 0.1
    assert torch.allclose(combined(VECTORS, MergeMethod(how="arithmetic", scale=1 / 3)), average)


def test_a_share_of_the_entries_is_kept_and_equal_ones_are_chosen_by_their_place():
    assert trimmed(torch.tensor([1.0, -1.0, 1.0, 0.5]), density=0.5).tolist() == [1.0, -1.0, 0.0, 0.0]


def test_vectors_that_cancel_have_the_sign_of_the_largest():
    opposite = [torch.tensor([0.3, -0.5]), torch.tensor([-0.3, 0.5])]
    assert ties(opposite, density=1.0).tolist() == pytest.approx([0.3, -0.5])


def step(rank=2, alpha=4.0):
    task = ClassificationTask(target="hpv", classes=["hpv"])
    return Step(name="s", task=task, adapter=Adapter({"within": LoraPart(rank=rank, alpha=alpha)}))


def a_state(seed, rank=2):
    generator = torch.Generator().manual_seed(seed)
    shapes = {A: (rank, 5), B: (4, rank), HEAD: (1, 3)}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


INITIAL = a_state(0) | {B: torch.zeros(4, 2)}


def test_one_step_at_scale_1_is_that_step_bit_for_bit():
    one = a_state(1)
    for how in ("average", "arithmetic", "ties"):
        found = merged(MergeMethod(of=["one"], how=how, density=1.0), step(), INITIAL, [(step(), one)])
        assert all(torch.equal(found[name], one[name]) for name in one)


def test_what_is_merged_is_the_update_and_not_its_factors():
    """Other factors of the same updates give the same merge."""
    one, two = a_state(1), a_state(2)
    turn = torch.tensor([[2.0, 1.0], [0.5, 1.0]])
    turned = two | {B: two[B] @ turn, A: torch.linalg.inv(turn) @ two[A]}
    spec = MergeMethod(of=["one", "two"], how="average")
    a, b = (merged(spec, step(), INITIAL, [(step(), one), (step(), other)]) for other in (two, turned))
    assert torch.allclose(effective(LAYER, step(), a), effective(LAYER, step(), b), atol=1e-5)
    mean = (effective(LAYER, step(), one) + effective(LAYER, step(), two)) / 2
    left, values, right = torch.linalg.svd(mean)
    best = left[:, :2] * values[:2] @ right[:2]
    assert torch.allclose(effective(LAYER, step(), a), best, atol=1e-5)
    of_factors = (one[B] + two[B]) / 2 @ (one[A] + two[A]) / 2
    assert (2.0 * of_factors.double() - best).abs().max() > 0.1


def test_a_rank_that_holds_the_merged_update_loses_nothing_and_ranks_and_scales_may_differ():
    one, two = a_state(1), a_state(2, rank=1)
    sources = [(step(), one), (step(rank=1, alpha=3.0), two)]
    wide = a_state(3, rank=3) | {B: torch.zeros(4, 3)}
    found = merged(MergeMethod(of=["a", "b"], how="arithmetic"), step(rank=3, alpha=1.0), wide, sources)
    whole = 2.0 * one[B].double() @ one[A].double() + 3.0 * two[B].double() @ two[A].double()
    assert torch.allclose(effective(LAYER, step(rank=3, alpha=1.0), found), whole, atol=1e-5)


def test_other_tensors_are_merged_as_their_way_from_the_seed():
    one, two = a_state(1), a_state(2)
    found = merged(
        MergeMethod(of=["a", "b"], how="arithmetic", scale=0.5), step(), INITIAL, [(step(), one), (step(), two)]
    )
    expected = INITIAL[HEAD] + 0.5 * ((one[HEAD] - INITIAL[HEAD]) + (two[HEAD] - INITIAL[HEAD]))
    assert torch.allclose(found[HEAD], expected, atol=1e-6)


def test_what_only_some_have_starts_as_the_seed_makes_it():
    one, two = a_state(1), {A: a_state(2)[A], B: a_state(2)[B]}
    found = merged(MergeMethod(of=["a", "b"], how="average"), step(), INITIAL, [(step(), one), (step(), two)])
    assert torch.equal(found[HEAD], INITIAL[HEAD])
