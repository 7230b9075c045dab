"""SCAFFOLD: control variates against client drift (Karimireddy et al., ICML 2020, algorithm 1).

Each gradient gets c - c_i added; c_i is kept in the center's vault, c comes with the order. The new c_i is the mean of
the round's own gradients, before any correction and clipping: for plain gradient steps the same as the paper's option
II, c_i - c + (x - y) / (K lr), and unlike it meaningful for AdamW.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from client.methods.base import Method, push
from client.training.job import Job
from client.vault.vault import Vault
from common.protocol.messages import State

CONTROL = "control/"  # in front of the names that travel
SHELF = "scaffold"


class Scaffold(Method):
    """One center's end of SCAFFOLD; the server's is in `server.aggregation.drift`."""

    def __init__(self, vault: Vault):
        self._vault = vault
        self._constant: State = {}
        self._sums: State = {}
        self._steps = 0

    def begin(self, job: Job) -> None:
        """c - c_i, with zero for what either side has not seen yet."""
        own = self._vault.load(SHELF, since=job.order.since)
        common = {n.removeprefix(CONTROL): t for n, t in job.order.extra.items() if n.startswith(CONTROL)}
        zero = torch.zeros(())
        self._constant = {n: common.get(n, zero) - own.get(n, zero) for n in {*own, *common}}

    def gradient(self, named: Mapping[str, nn.Parameter]) -> None:
        """Record the gradients, then correct them."""
        self._steps += 1
        for name, parameter in named.items():
            assert parameter.grad is not None
            raw = parameter.grad.detach().double()
            self._sums[name] = self._sums[name] + raw if name in self._sums else raw
        push(named, self._constant)

    def end(self, job: Job, leaving: State) -> State:
        """The new c_i into the vault; its change travels, one number for each that is sent."""
        own = self._vault.load(SHELF, since=job.order.since)
        new = {n: t for n, t in self.mean_gradients().items() if n in leaving}
        new |= {n: torch.zeros_like(t) for n, t in leaving.items() if n not in new}
        self._vault.save(SHELF, {**own, **new}, order=job.order)
        return {CONTROL + n: t - own[n] if n in own else t for n, t in new.items()}

    def mean_gradients(self) -> State:
        """Mean gradient of each parameter over the steps, zero where a step did not reach it; float32 on the CPU."""
        return {name: (total / max(self._steps, 1)).float().cpu() for name, total in self._sums.items()}
