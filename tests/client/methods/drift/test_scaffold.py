"""SCAFFOLD against its paper on plain gradient steps."""

import torch

from client.methods.drift.scaffold import Scaffold
from client.vault.vault import Vault
from common.config.federation import ScaffoldFederation


def test_the_new_control_is_the_papers_option_two(bench, tmp_path):
    rate, steps, target = 0.1, 4, torch.tensor([0.5, 0.0])
    common = {"control/p/w": torch.tensor([0.3, -0.1])}
    order = bench.order(ScaffoldFederation(), number=2, since=1, extra=common)
    vault = Vault(tmp_path, order)
    own = torch.tensor([-0.2, 0.4])
    vault.save("scaffold", {"p/w": own}, order=bench.order(ScaffoldFederation()))
    method = bench.begun(Scaffold(vault), order)
    y = bench.descend(method, target, steps=steps, rate=rate)
    sent = method.end(bench.job(order), {"p/w": y})
    expected = own - common["control/p/w"] + (bench.x["p/w"] - y) / (steps * rate)
    assert torch.allclose(vault.load("scaffold", since=2)["p/w"], expected, atol=1e-6)
    assert torch.allclose(sent["control/p/w"], expected - own, atol=1e-6)


def test_a_parameter_that_no_batch_reached_has_a_control_of_zero(bench, tmp_path):
    order = bench.order(ScaffoldFederation())
    vault = Vault(tmp_path, order)
    method = bench.begun(Scaffold(vault), order)
    bench.descend(method, torch.zeros(2))
    sent = method.end(bench.job(order), {"p/w": torch.zeros(2), "q/w": torch.ones(3)})
    assert sent.keys() == {"control/p/w", "control/q/w"} and sent["control/q/w"].tolist() == [0.0] * 3


def test_an_update_that_was_not_used_leaves_no_trace(bench, tmp_path):
    order = bench.order(ScaffoldFederation())
    vault = Vault(tmp_path, order)
    method = bench.begun(Scaffold(vault), order)
    method.end(bench.job(order), {"p/w": bench.descend(method, torch.zeros(2))})
    again = bench.begun(Scaffold(vault), bench.order(ScaffoldFederation(), number=2, since=0))
    assert bench.corrected(again, [3.0, 3.0], [1.0, 2.0]) == [1.0, 2.0]
    used = bench.begun(Scaffold(vault), bench.order(ScaffoldFederation(), number=2, since=1))
    assert bench.corrected(used, [3.0, 3.0], [1.0, 2.0]) != [1.0, 2.0]
