"""Adam's moments across rounds: a fresh optimizer goes on as the old one would have."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from client.methods.drift.moments import AveragedMoments, KeptMoments
from client.vault.vault import Vault
from common.config.federation import MeanFederation


class Model(nn.Module):
    """Two parameters by their state names; a batch may reach one of them alone."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.v = nn.Parameter(torch.tensor([1.0, -2.0])), nn.Parameter(torch.tensor([0.5]))

    def named_trainable_parameters(self) -> dict[str, nn.Parameter]:
        return {"p/w": self.w, "q/v": self.v}


def optimizer_of(model: Model) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.01)


def descend(model: Model, optimizer: torch.optim.Optimizer, steps: int, *, reaches_v: bool = True) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        ((model.w - 0.3).square().sum() + (model.v.square().sum() if reaches_v else 0.0)).backward()
        optimizer.step()


def job_of(bench, model, *, number=1, since=0, extra=None):
    order = bench.order(MeanFederation(), number=number, since=since, extra=extra)
    return replace(bench.job(order), model=model, optimizer=optimizer_of(model))


def test_kept_at_the_center_a_fresh_optimizer_goes_on_bit_for_bit(bench, tmp_path):
    whole, parted = Model(), Model()
    descend(whole, optimizer_of(whole), 7)
    first = job_of(bench, parted)
    vault = Vault(tmp_path, first.order)
    KeptMoments(vault).begin(first)
    descend(parted, first.optimizer, 4)
    assert KeptMoments(vault).end(first, {"p/w": parted.w.detach()}) == {}
    second = job_of(bench, parted, number=2, since=1)
    KeptMoments(vault).begin(second)
    descend(parted, second.optimizer, 3)
    assert torch.equal(whole.w, parted.w) and torch.equal(whole.v, parted.v)


def test_a_round_whose_update_was_not_used_leaves_no_moments(bench, tmp_path):
    model = Model()
    first = job_of(bench, model)
    vault = Vault(tmp_path, first.order)
    descend(model, first.optimizer, 2)
    KeptMoments(vault).end(first, {})
    again = job_of(bench, model, number=2, since=0)
    KeptMoments(vault).begin(again)
    assert not again.optimizer.state
    used = job_of(bench, model, number=2, since=1)
    KeptMoments(vault).begin(used)
    assert len(used.optimizer.state) == 2


def test_averaged_moments_leave_without_the_correction_for_their_beginning(bench):
    model = Model()
    job = job_of(bench, model)
    descend(model, job.optimizer, 1, reaches_v=False)
    leaving = {"p/w": model.w.detach(), "q/v": model.v.detach(), "q/buffer": torch.ones(3)}
    sent = AveragedMoments().end(job, leaving)
    gradient = 2 * (torch.tensor([1.0, -2.0]) - 0.3)
    assert torch.allclose(sent["adam_first/p/w"], gradient, rtol=1e-5)
    assert torch.allclose(sent["adam_second/p/w"], gradient**2, rtol=1e-4)
    assert sent["adam_first/q/v"].tolist() == [0.0] and sent["adam_second/q/buffer"].tolist() == [0.0] * 3
    assert set(sent) == {mark + name for mark in ("adam_first/", "adam_second/") for name in leaving}


def test_a_center_starts_from_the_moments_that_its_order_brings(bench):
    model, fresh = Model(), Model()
    extra = {"adam_first/p/w": torch.tensor([3.0, 3.0]), "adam_second/p/w": torch.tensor([4.0, -1e-3])}
    job = job_of(bench, model, number=2, extra=extra)
    AveragedMoments().begin(job)
    kept = job.optimizer.state[model.w]
    assert kept["exp_avg"].tolist() == [3.0, 3.0] and kept["exp_avg_sq"].tolist() == [4.0, 0.0]  # no root of below 0
    descend(model, job.optimizer, 1)
    moment = 0.9 * 3.0 + 0.1 * 2 * 0.7
    second = 0.999 * 4.0 + 0.001 * (2 * 0.7) ** 2
    expected = 1.0 * (1 - 0.1 * 0.01) - 0.1 * moment / second**0.5
    assert model.w[0].item() == pytest.approx(expected, abs=1e-5)
    plain = optimizer_of(fresh)
    descend(fresh, plain, 1)
    assert torch.equal(model.v, fresh.v)  # the order brought nothing for it
