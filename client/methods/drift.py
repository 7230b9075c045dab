"""What a federation asks of local training beside the task's own loss: FedProx, SCAFFOLD and FedDyn as one correction.

All three add something to each local gradient: a pull towards the round's start x and a constant.

    FedProx   mu (y - x)                       Li et al., MLSys 2020
    SCAFFOLD  c - c_i                          Karimireddy et al., ICML 2020, algorithm 1
    FedDyn    alpha (y - x) - g_i              Acar et al., ICLR 2021, algorithm 1

c_i and g_i are kept in the center's vault. SCAFFOLD's new c_i is the mean of the round's own gradients, before
correction and clipping: for plain gradient steps the same as the paper's option II, c_i - c + (x - y) / (K lr), and
unlike it meaningful for AdamW. Corrections act before clipping, as if they were part of the loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from client.vault.vault import Vault
from common.protocol.messages import Order, State

CONTROL = "control/"
SCAFFOLD, FEDDYN = "scaffold", "feddyn"


@dataclass
class Correction:
    """What is added to every local gradient, and the mean of the gradients that it was added to.

    Args:
        anchor: x, by state name.
        pull: mu or alpha.
        constant: by state name; absent names get nothing.
    """

    anchor: Mapping[str, Tensor] = field(default_factory=dict)
    pull: float = 0.0
    constant: Mapping[str, Tensor] = field(default_factory=dict)
    records: bool = False
    steps: int = 0
    _sums: State = field(default_factory=dict)

    @torch.no_grad()
    def apply(self, parameters: Mapping[str, nn.Parameter]) -> None:
        """Correct the gradients of one step in place. A parameter that the batch did not reach counts as zero."""
        self.steps += 1
        for name, parameter in parameters.items():
            if parameter.grad is None:
                if not self.pull and name not in self.constant:
                    continue
                parameter.grad = torch.zeros_like(parameter)
            if self.records:
                raw = parameter.grad.detach().double()
                self._sums[name] = self._sums[name] + raw if name in self._sums else raw
            if self.pull:
                parameter.grad += self.pull * (parameter - self.anchor[name].to(parameter.device))
            if name in self.constant:
                parameter.grad += self.constant[name].to(parameter.device, parameter.dtype)

    def mean_gradients(self) -> State:
        """Mean gradient of each parameter over the steps, before correction, float32 on the CPU."""
        return {name: (total / max(self.steps, 1)).float().cpu() for name, total in self._sums.items()}


def correction_for(order: Order, vault: Vault) -> Correction | None:
    """What the order's federation adds to the local gradients; None where it adds nothing."""
    spec = order.step.federation
    if spec.kind == SCAFFOLD:
        own = vault.load(SCAFFOLD, since=order.since)
        common = {n.removeprefix(CONTROL): t for n, t in order.extra.items() if n.startswith(CONTROL)}
        names = {*own, *common}
        zero = torch.zeros(())
        constant = {n: common.get(n, zero) - own.get(n, zero) for n in names}
        return Correction(order.state, spec.proximal, constant, records=True)
    if spec.kind == FEDDYN:
        held = vault.load(FEDDYN, since=order.since)
        return Correction(order.state, spec.alpha + spec.proximal, {n: -t for n, t in held.items()})
    return Correction(order.state, spec.proximal) if spec.proximal > 0 else None


def settle(correction: Correction | None, order: Order, trained: State, vault: Vault) -> State:
    """After training: write what the vault must hold next round; what travels beside the update.

    Args:
        trained: the tensors that this center sends back, as trained.
    """
    spec = order.step.federation
    if spec.kind == SCAFFOLD and correction is not None:
        own = vault.load(SCAFFOLD, since=order.since)
        new = {n: t for n, t in correction.mean_gradients().items() if n in trained}
        new |= {n: torch.zeros_like(t) for n, t in trained.items() if n not in new}
        vault.save(SCAFFOLD, {**own, **new}, order=order)
        return {CONTROL + n: t - own[n] if n in own else t for n, t in new.items()}
    if spec.kind == FEDDYN:
        held = vault.load(FEDDYN, since=order.since)
        moved = {n: t - order.state[n] for n, t in trained.items() if t.is_floating_point()}
        new = {n: held.get(n, torch.zeros_like(d)) - spec.alpha * d for n, d in moved.items()}
        vault.save(FEDDYN, {**held, **new}, order=order)
    return {}
