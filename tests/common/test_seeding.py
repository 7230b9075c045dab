"""Seeds: torch's own, without what torch keeps for devices that are not here."""

from __future__ import annotations

import pytest
import torch

from common.seeding import seed_torch


@pytest.mark.parametrize("seed", [0, 7, 2**62 + 5])
def test_seeding_torch_is_torchs_own_bit_by_bit(seed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        theirs = torch.rand(5), torch.randn(5)
        seed_torch(seed)
        ours = torch.rand(5), torch.randn(5)
    assert all(torch.equal(a, b) for a, b in zip(theirs, ours, strict=True))


def test_nothing_is_kept_for_devices_that_are_not_here():
    queued = torch.xpu._queued_calls if hasattr(torch.xpu, "_queued_calls") else []
    before = len(queued)
    with torch.random.fork_rng(devices=[]):
        for seed in range(3):
            seed_torch(seed)
    assert len(queued) == before
