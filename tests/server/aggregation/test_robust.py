"""Robust rules against their definitions, written out densely, and against what they must withstand."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.adapters.lowrank import trained_tensors
from common.config.compatibility import BOUNDS
from server.aggregation import Update, aggregate
from server.aggregation.coordinatewise import exchanges
from server.aggregation.geometric import gram
from tests.server.aggregation.made import (
    LAYERS,
    SEEDS,
    draw,
    effective,
    gap,
    generator,
    lora_part,
    lora_state,
    setting,
    updates_like,
)

few = settings(max_examples=20, deadline=None)
SIZE = 6


def vectors(seed: int, count: int) -> np.ndarray:
    return draw(generator(seed), count, SIZE).numpy()


def updates_from(rows: np.ndarray, weights=None) -> list[Update]:
    weights = [1.0] * len(rows) if weights is None else weights
    return [
        Update(f"C{i}", {"a/w": torch.from_numpy(row.copy())}, w)
        for i, (row, w) in enumerate(zip(rows, weights, strict=True))
    ]


def aggregated(kind: str, rows: np.ndarray, weights=None, **options) -> np.ndarray:
    start = {"a/w": torch.zeros(SIZE, dtype=torch.float64)}
    return aggregate(updates_from(rows, weights), start, {}, setting(kind, **options)).state["a/w"].numpy()


@given(n=st.integers(1, 33), seed=SEEDS)
def test_the_exchanges_sort_any_number_of_values(n, seed):
    values = np.random.default_rng(seed).permutation(n)
    for low, high in exchanges(n):
        assert low < high < n
        if values[low] > values[high]:
            values[low], values[high] = values[high], values[low]
    assert list(values) == sorted(values)


@given(seed=SEEDS, count=st.integers(5, 10))
@few
def test_median_and_trimmed_mean_are_what_they_are_called(seed, count):
    rows = vectors(seed, count)
    assert np.allclose(aggregated("median", rows), np.median(rows, axis=0), atol=1e-15)
    trimmed = np.sort(rows, axis=0)[2:-2].mean(axis=0)
    assert np.allclose(aggregated("trimmed_mean", rows), trimmed, atol=1e-15)


@given(seed=SEEDS, count=st.integers(5, 9))
@few
def test_the_geometric_median_has_the_least_summed_distance(seed, count):
    rows, weights = vectors(seed, count), np.random.default_rng(seed).uniform(0.5, 2, count)
    found = aggregated("geometric_median", rows, list(weights))
    cost = lambda v: (weights * np.linalg.norm(rows - v, axis=1)).sum()  # noqa: E731
    rng = np.random.default_rng(seed)
    nearby = [found + rng.normal(0, size, SIZE) for size in (1e-3, 1e-2, 0.1, 1.0) for _ in range(20)]
    others = [*rows, rows.mean(axis=0), np.median(rows, axis=0), *nearby]
    assert all(cost(found) <= cost(other) + 1e-5 for other in others)


@given(seed=SEEDS, count=st.integers(5, 9))
@few
def test_norm_clipping_is_the_mean_of_shortened_updates(seed, count):
    rows = vectors(seed, count)
    lengths = np.linalg.norm(rows, axis=1)
    limit = np.sort(lengths)[(count - 1) // 2]
    wanted = (rows * np.minimum(1, limit / lengths)[:, None]).mean(axis=0)
    assert np.allclose(aggregated("norm_clip", rows), wanted, atol=1e-12)
    assert np.allclose(aggregated("norm_clip", rows, bound=1e9), rows.mean(axis=0), atol=1e-12)


@given(seed=SEEDS, count=st.integers(5, 9))
@few
def test_centered_clipping_follows_its_recursion(seed, count):
    rows, at = vectors(seed, count), np.zeros(SIZE)
    for _ in range(3):
        lengths = np.linalg.norm(rows - at, axis=1)
        at = at + ((rows - at) * np.minimum(1, 1.5 / lengths)[:, None]).mean(axis=0)
    assert np.allclose(aggregated("centered_clip", rows, bound=1.5), at, atol=1e-12)


def krum_order(rows: np.ndarray, faulty: int) -> list[int]:
    distances = np.array([[((a - b) ** 2).sum() for b in rows] for a in rows])
    near = max(1, len(rows) - faulty - 2)
    scores = [np.sort(np.delete(row, i))[:near].sum() for i, row in enumerate(distances)]
    return [int(i) for i in np.argsort(scores, kind="stable")]


@given(seed=SEEDS, count=st.integers(7, 10))
@few
def test_krum_and_multi_krum_choose_by_their_definition(seed, count):
    rows = vectors(seed, count)
    order = krum_order(rows, 2)
    assert np.array_equal(aggregated("krum", rows), rows[order[0]])
    assert np.allclose(aggregated("multi_krum", rows), rows[order[: count - 2]].mean(axis=0), atol=1e-12)
    assert np.allclose(aggregated("multi_krum", rows, keep=3), rows[order[:3]].mean(axis=0), atol=1e-12)


@given(seed=SEEDS, count=st.integers(7, 10))
@few
def test_bulyan_follows_its_definition(seed, count):
    rows, faulty = vectors(seed, count), 1
    left, chosen = list(range(count)), []
    while len(chosen) < count - 2 * faulty:
        chosen.append(left.pop(krum_order(rows[left], faulty)[0]))
    kept = rows[chosen]
    middle = np.median(kept, axis=0)
    wanted = []
    for column, at in zip(kept.T, middle, strict=True):  # every subset, the one with the least reach
        subsets = combinations(sorted(column), len(kept) - 2 * faulty)
        wanted.append(np.mean(min(subsets, key=lambda s: max(abs(x - at) for x in s))))
    assert np.allclose(aggregated("bulyan", rows), wanted, atol=1e-12)


@pytest.mark.parametrize("kind", sorted(BOUNDS))
@pytest.mark.parametrize("scale", [1e2, 1e9, -1e9])
def test_faulty_centers_within_the_bound_do_bounded_harm(kind, scale):
    """Honest updates are (1 +- 0.1) everywhere; whatever f others send, the result stays among the honest ones, or for
    clipping within its share of them. The plain mean is carried away."""
    faulty = 1 if kind == "bulyan" else 2
    rng = np.random.default_rng(0)
    rows = 1 + 0.1 * rng.uniform(-1, 1, (7, SIZE))
    rows[-faulty:] = scale * rng.uniform(0.5, 1, (faulty, SIZE))
    found = aggregated(kind, rows, faulty=faulty)
    honest = rows[:-faulty].mean(axis=0)
    allowed = 2.5 * faulty / 7 if "clip" in kind else 0.2
    assert np.linalg.norm(found - honest) <= allowed * np.linalg.norm(honest)
    assert np.linalg.norm(aggregated("mean", rows) - honest) > 10 * np.linalg.norm(honest)


@pytest.mark.parametrize("rule", ["fedit", "ffa", "rolora", "fedsvd", "fedsb", "flora"])
@given(seed=SEEDS, drift=st.sampled_from([1e-4, 1.0]))
@few
def test_inner_products_are_those_of_the_effective_weights(rule, seed, drift):
    part = lora_part(rule)
    g = generator(seed)
    start = {"decoder/w": draw(g, 3, 4), **lora_state(g, part)}
    names = trained_tensors(start, {"within": part}, round=2)
    updates = updates_like(start, seed, 5, names=names, drift=drift, zeros=False)
    before = effective(start, part)
    rows = []
    for update in updates:
        after = effective(update.state, part)
        flat = [(after[layer] - before[layer]).flatten() for layer in LAYERS]
        rows.append(torch.cat([*flat, (update.state["decoder/w"] - start["decoder/w"]).flatten()]))
    dense = torch.stack(rows)
    found = gram(updates, start, list(start), setting(part=part))
    wanted = dense @ dense.T
    assert torch.allclose(found, wanted, atol=1e-9 * float(wanted.abs().max()))


def test_an_attack_that_hides_in_the_gauge_is_seen():
    """Factors as large as the others' whose product is not: distances of factors alone would not tell."""
    part, layer = lora_part("fedit"), "within/blocks.0.qkv"
    start = lora_state(generator(0), part)
    updates = updates_like(start, 0, 7, drift=0.01, zeros=False)
    turned = dict(updates[5].state)
    for name in LAYERS:  # the same product in another gauge: far away in factors, at no distance in effect
        turned[f"{name}.lora_A.weight"] = 3 * turned[f"{name}.lora_A.weight"]
        turned[f"{name}.lora_B.weight"] = turned[f"{name}.lora_B.weight"] / 3
    flipped = dict(updates[6].state)
    for name in LAYERS:
        flipped[f"{name}.lora_B.weight"] = -flipped[f"{name}.lora_B.weight"]
    sent = [*updates[:5], Update("C5", turned, 1.0), Update("C6", flipped, 1.0)]
    report = aggregate(sent, start, {}, setting("multi_krum", part=part, keep=6)).report
    assert report == {**report, "C5.weight": pytest.approx(1 / 6), "C6.weight": 0.0}
    assert gap({layer: effective(turned, part)[layer]}, {layer: effective(updates[5].state, part)[layer]}) < 1e-12


def test_what_clipping_takes_from_the_updates_stays_with_the_start_also_in_products():
    """flora under norm_clip: the weights of updates and start give the mean of effective weights."""
    part = lora_part("flora")
    start = lora_state(generator(1), part)
    names = trained_tensors(start, {"within": part}, round=1)
    updates = updates_like(start, 1, 5, names=names, zeros=False)
    done = aggregate(updates, start, {}, setting("norm_clip", part=part))
    weights = [done.report[f"C{i}.weight"] for i in range(5)]
    assert 0 < sum(weights) < 1
    before, each = effective(start, part), [effective(u.state, part) for u in updates]
    wanted = {
        n: (1 - sum(weights)) * before[n] + sum(w * e[n] for w, e in zip(weights, each, strict=True)) for n in LAYERS
    }
    assert gap(effective(done.state, part), wanted) < 1e-12
