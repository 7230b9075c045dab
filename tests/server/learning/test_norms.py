"""Norms of updates: by definition, and all centers at once."""

import pytest
import torch

from common.adapters.lowrank import MIDDLE, A, B, pairs_of
from common.config.adapter import LoraPart
from server.aggregation import factors
from server.learning.norms import part_norms, squared_distance

LAYERS = ("blocks.0.qkv", "blocks.1.qkv")


@pytest.fixture(params=["A", "B", "both", "middle"])
def states(request):
    g = torch.Generator().manual_seed(3)
    shapes = {A: (2, 5), B: (7, 2), **({MIDDLE: (2, 2)} if request.param == "middle" else {})}
    start = {f"within/{layer}.{f}": torch.randn(s, generator=g) for layer in LAYERS for f, s in shapes.items()}
    start |= {"head/w": torch.randn(4, 3, generator=g)}
    moved = {"A": (A,), "B": (B,), "both": (A, B), "middle": (MIDDLE,)}[request.param]
    names = [name for name in start if name.endswith(moved) or name.startswith("head")]
    return start, {c: {n: start[n] + 0.1 * torch.randn(start[n].shape, generator=g) for n in names} for c in "XYZ"}


def effective(state, start, layer, scale):
    a, b = (state.get(f"within/{layer}.{f}", start[f"within/{layer}.{f}"]).double() for f in (A, B))
    name = f"within/{layer}.{MIDDLE}"
    middle = state.get(name, start[name]).double() if name in start else torch.eye(2, dtype=torch.float64)
    return scale * b @ middle @ a


def test_a_layer_counts_by_its_effective_weight_and_a_tensor_by_its_own(states):
    start, updates = states
    part = LoraPart(rank=2, alpha=3.0, rule="fedsb" if any(MIDDLE in name for name in start) else "fedit")
    found = part_norms(updates, start, {"within": part})
    for center, state in updates.items():
        square = sum(
            float((effective(state, start, layer, 1.5) - effective({}, start, layer, 1.5)).square().sum())
            for layer in LAYERS
        )
        assert found[center]["within"] == pytest.approx(square**0.5, rel=1e-9)
        assert found[center]["head"] == pytest.approx(float((state["head/w"] - start["head/w"]).double().norm()))


def test_all_at_once_is_each_by_itself_whatever_the_others_carry(states):
    start, updates = states
    part = {"within": LoraPart(rank=2, alpha=3.0, rule="fedsb" if any(MIDDLE in name for name in start) else "fedit")}
    some = {**updates, "W": {"head/w": start["head/w"] + 1}}
    together = part_norms(some, start, part)
    for center, state in some.items():
        assert together[center] == pytest.approx(part_norms({center: state}, start, part)[center], rel=1e-12)
    assert set(together["W"]) == {"head"}


def test_squares_are_the_diagonal_of_the_gram_matrix(states):
    start, updates = states
    part = LoraPart(rank=2, alpha=3.0, rule="fedsb" if any(MIDDLE in name for name in start) else "fedit")
    [pair, _] = pairs_of(start, {"within": part})
    own = [{n: t for n, t in state.items() if n.startswith(pair.layer)} for state in updates.values()]
    gram = factors.effective_gram(pair, own, start).diagonal().tolist()
    assert factors.effective_squares(pair, own, start) == pytest.approx(gram, rel=1e-9)


def test_a_long_tensor_is_measured_in_float64():
    n = 3_000_001
    change = torch.full((n,), 0.1)
    assert squared_distance(change, torch.zeros(n)) == pytest.approx(n * float(torch.tensor(0.1)) ** 2, rel=1e-12)
    assert squared_distance(torch.full((2,), 1e30), torch.zeros(2)) == pytest.approx(2e60, rel=1e-6)
