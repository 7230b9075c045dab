"""FedDyn against its paper on plain gradient steps."""

import torch

from client.methods.drift.feddyn import FedDyn
from client.vault.vault import Vault
from common.config.federation import FedDynFederation

SPEC = FedDynFederation(alpha=0.5)


def test_its_state_follows_the_paper(bench, tmp_path):
    first = bench.order(SPEC)
    vault = Vault(tmp_path, first)
    method = bench.begun(FedDyn(0.5, vault), first)
    y = bench.descend(method, torch.zeros(2))
    assert method.end(bench.job(first), {"p/w": y}) == {}
    held = vault.load("feddyn", since=1)["p/w"]
    assert torch.allclose(held, -0.5 * (y - bench.x["p/w"]))
    second = bench.begun(FedDyn(0.5, vault), bench.order(SPEC, number=2, since=1))
    at = torch.tensor([3.0, 3.0])
    expected = 1 + 0.5 * (at - bench.x["p/w"]) - held
    assert torch.allclose(torch.tensor(bench.corrected(second, at.tolist(), [1.0, 1.0])), expected)


def test_an_update_that_was_not_used_leaves_no_trace(bench, tmp_path):
    order = bench.order(SPEC)
    vault = Vault(tmp_path, order)
    method = bench.begun(FedDyn(0.5, vault), order)
    method.end(bench.job(order), {"p/w": bench.descend(method, torch.zeros(2))})
    again = bench.begun(FedDyn(0.5, vault), bench.order(SPEC, number=2, since=0))
    assert bench.corrected(again, bench.x["p/w"].tolist(), [1.0, 2.0]) == [1.0, 2.0]
