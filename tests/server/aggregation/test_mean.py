"""The mean is exact for one center, blind to reply order, leaves untrained parts alone, and can be taken one by one."""

import tracemalloc

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import AdapterError
from server.aggregation.mean import Update, average, by_blocks, mean, means
from server.aggregation.types import CHUNK
from tests.server.aggregation.made import lora_part, setting


def updates_of(seed, count):
    generator = torch.Generator().manual_seed(seed)
    return [
        Update(
            f"C{i}",
            {"a/w": torch.randn(3, 5, generator=generator), "b/w": torch.randn(2, generator=generator)},
            i + 0.5,
        )
        for i in range(count)
    ]


START = {"a/w": torch.zeros(3, 5), "b/w": torch.ones(2)}


@given(seed=st.integers(0, 10_000), count=st.integers(2, 8), order=st.randoms())
@settings(max_examples=40, deadline=None)
def test_reply_order_does_not_change_a_bit(seed, count, order):
    updates = updates_of(seed, count)
    shuffled = list(updates)
    order.shuffle(shuffled)
    assert all(
        torch.equal(a, b)
        for a, b in zip(mean(updates, start=START).values(), mean(shuffled, start=START).values(), strict=True)
    )


@given(seed=st.integers(0, 10_000), weight=st.floats(1e-3, 1e6))
@settings(max_examples=40, deadline=None)
def test_one_center_alone_is_returned_exactly(seed, weight):
    [update] = updates_of(seed, 1)
    update.weight = weight
    assert all(torch.equal(value, update.state[name]) for name, value in mean([update], start=START).items())


@given(seed=st.integers(0, 10_000), count=st.integers(1, 8))
@settings(max_examples=40, deadline=None)
def test_it_is_the_weighted_mean(seed, count):
    updates = updates_of(seed, count)
    total = sum(u.weight for u in updates)
    expected = sum(u.weight / total * u.state["a/w"].double() for u in updates)
    assert torch.allclose(mean(updates, start=START)["a/w"].double(), expected, atol=1e-6)


def test_a_part_is_averaged_over_the_centers_that_trained_it_and_kept_where_none_did():
    ct_only = [Update(f"C{i}", {"a/w": torch.full((3, 5), float(i))}, 1.0) for i in range(4)]
    with_pet = Update("MDA", {"a/w": torch.full((3, 5), 9.0), "b/w": torch.full((2,), 7.0)}, 1.0)
    assert torch.equal(mean(ct_only, start=START)["b/w"], START["b/w"])
    both = mean([*ct_only, with_pet], start=START)
    assert torch.equal(both["b/w"], torch.full((2,), 7.0))
    assert torch.allclose(both["a/w"], torch.full((3, 5), 3.0))


def test_counts_stay_whole_numbers():
    start = {"a/n": torch.tensor([3])}
    updates = [Update(f"C{i}", {"a/n": torch.tensor([i])}, 1.0) for i in range(4)]
    assert mean(updates, start=start)["a/n"].tolist() == [2]


def test_an_iterator_gives_the_same_bits_and_must_be_in_order():
    updates = updates_of(0, 6)
    all_at_once = average(updates, START, {}, setting()).state
    one_by_one = average(iter(updates), START, {}, setting()).state
    assert all(torch.equal(all_at_once[name], one_by_one[name]) for name in START)
    with pytest.raises(AdapterError, match="update of C0 comes after the one of C1"):
        average(iter([updates[1], updates[0]]), START, {}, setting())
    with pytest.raises(
        AdapterError, match="Part 'within' stacks factors, so its updates cannot be taken one at a time"
    ):
        average(iter(updates), START, {}, setting(part=lora_part("flora")))


def test_memory_does_not_grow_with_the_number_of_streamed_updates():
    """torch's own allocations are not traced, so numpy's memory stands for the tensors'."""
    import numpy as np

    size = 20_000
    start = {"a/w": torch.zeros(size)}

    def stream(count):
        rng = np.random.default_rng(0)
        for i in range(count):
            yield Update(f"C{i:04}", {"a/w": torch.from_numpy(rng.standard_normal(size, dtype=np.float32))}, 1.0)

    peaks = []
    for count in (5, 200):
        tracemalloc.start()
        average(stream(count), start, {}, setting())
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 2 * size * 4


def test_by_blocks_the_mean_has_the_bits_of_the_loop_over_tensors():
    g = torch.Generator().manual_seed(0)
    sizes = [int(n) for n in torch.randint(1, 300, (20,), generator=g)]
    start = {f"p/{i}": torch.randn(n, 3, generator=g) for i, n in enumerate(sizes)}
    start |= {"p/large": torch.randn(2 * CHUNK + 13, generator=g), "p/count": torch.tensor(3)}
    start |= {"p/half": torch.randn(9, generator=g).half(), "p/nobody": torch.ones(2)}

    def trained(k):
        moved = {n: t + torch.randn(t.shape, generator=g).to(t.dtype) if t.is_floating_point() else t + k
                 for n, t in start.items()}  # fmt: skip
        return {n: t for n, t in moved.items() if n != "p/nobody" and not (k == 3 and n == "p/4")}

    updates = [Update(f"C{k}", trained(k), float(k + 1) ** 0.5) for k in range(7)]
    for some in (updates, updates[::-1], updates[:1], updates[:2], [updates[3], updates[0]]):
        loop, blocks = means(some, start=start), by_blocks(some, start=start, skip=["p/2"])
        assert list(blocks) == [name for name in loop if name != "p/2"]
        for name, tensor in blocks.items():
            wanted = loop[name] if tensor.is_floating_point() else loop[name].round()
            assert tensor.dtype == start[name].dtype and torch.equal(tensor, wanted.to(tensor.dtype)), name
