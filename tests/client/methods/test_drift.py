"""FedProx, SCAFFOLD and FedDyn as corrections of the gradient, against their papers on plain gradient steps."""

import pytest
import torch
from torch import nn

from client.methods.drift import Correction, correction_for, settle
from client.vault.vault import Vault
from common.config.federation import FedDynFederation, MeanFederation, ScaffoldFederation
from common.config.run import BackboneSpec, Split
from common.config.step import Step
from common.protocol.messages import Order

X = {"p/w": torch.tensor([1.0, -2.0])}


def order(federation, *, number=1, since=0, extra=None):
    step = Step(name="s", federation=federation)
    return Order(step, 1, number, BackboneSpec(), "base", Split(), state=X, since=since, extra=extra or {})


def descend(correction, target, *, steps=3, rate=0.1):
    """Plain gradient steps on |w - target|^2 / 2 from X, corrected; where they end, and the gradients on the way."""
    parameter, seen = nn.Parameter(X["p/w"].clone()), []
    for _ in range(steps):
        parameter.grad = (parameter - target).detach()
        seen.append(parameter.grad.clone())
        if correction is not None:
            correction.apply({"p/w": parameter})
        with torch.no_grad():
            parameter -= rate * parameter.grad
    return parameter.detach(), torch.stack(seen).mean(dim=0)


def test_a_plain_mean_corrects_nothing(tmp_path):
    asked = order(MeanFederation())
    assert correction_for(asked, Vault(tmp_path, asked)) is None
    assert settle(None, asked, X, Vault(tmp_path, asked)) == {} and not list(tmp_path.iterdir())


def test_fedprox_pulls_towards_the_start(tmp_path):
    asked = order(MeanFederation(proximal=2.0))
    parameter = nn.Parameter(torch.tensor([3.0, 3.0]))
    parameter.grad = torch.tensor([1.0, 1.0])
    correction_for(asked, Vault(tmp_path, asked)).apply({"p/w": parameter})
    assert parameter.grad.tolist() == [1 + 2 * (3 - 1), 1 + 2 * (3 + 2)]


def test_a_parameter_without_a_gradient_is_pulled_too():
    parameter = nn.Parameter(torch.tensor([3.0, 3.0]))
    Correction(X, 1.0).apply({"p/w": parameter})
    assert parameter.grad.tolist() == [2.0, 5.0]


def test_scaffolds_new_control_is_the_papers_option_two(tmp_path):
    rate, steps, target = 0.1, 4, torch.tensor([0.5, 0.0])
    common = {"control/p/w": torch.tensor([0.3, -0.1])}
    asked = order(ScaffoldFederation(), number=2, since=1, extra=common)
    vault = Vault(tmp_path, asked)
    own = torch.tensor([-0.2, 0.4])
    vault.save("scaffold", {"p/w": own}, order=order(ScaffoldFederation()))
    correction = correction_for(asked, vault)
    y, _ = descend(correction, target, steps=steps, rate=rate)
    sent = settle(correction, asked, {"p/w": y}, vault)
    expected = own - common["control/p/w"] + (X["p/w"] - y) / (steps * rate)
    assert torch.allclose(vault.load("scaffold", since=2)["p/w"], expected, atol=1e-6)
    assert torch.allclose(sent["control/p/w"], expected - own, atol=1e-6)


def test_feddyns_state_follows_the_paper(tmp_path):
    spec = FedDynFederation(alpha=0.5)
    vault = Vault(tmp_path, order(spec))
    first = order(spec)
    y, _ = descend(correction_for(first, vault), torch.zeros(2))
    assert settle(None, first, {"p/w": y}, vault) == {}
    held = vault.load("feddyn", since=1)["p/w"]
    assert torch.allclose(held, -0.5 * (y - X["p/w"]))
    second = correction_for(order(spec, number=2, since=1), vault)
    assert second.pull == 0.5 and torch.allclose(second.constant["p/w"], -held)


@pytest.mark.parametrize("spec", [ScaffoldFederation(), FedDynFederation()])
def test_an_update_that_was_not_used_leaves_no_trace(tmp_path, spec):
    vault, asked = Vault(tmp_path, order(spec)), order(spec, number=1)
    correction = correction_for(asked, vault)
    y, _ = descend(correction, torch.zeros(2))
    settle(correction, asked, {"p/w": y}, vault)
    again = correction_for(order(spec, number=2, since=0), vault)
    assert not again.constant
