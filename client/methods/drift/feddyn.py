"""FedDyn: dynamic regularisation against client drift (Acar et al., ICLR 2021, algorithm 1).

Each gradient gets alpha (y - x) - g_i added; g_i is kept in the center's vault and moves by -alpha (y - x) a round.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from client.methods.base import Method, pull, push
from client.training.job import Job
from client.vault.vault import Vault
from common.protocol.messages import State

SHELF = "feddyn"


class FedDyn(Method):
    """One center's end of FedDyn; the server's is in `server.aggregation.drift`.

    Args:
        alpha: the paper's.
    """

    def __init__(self, alpha: float, vault: Vault):
        self.alpha = alpha
        self._vault = vault
        self._start: State = {}
        self._constant: State = {}

    def begin(self, job: Job) -> None:
        """Remember x, and -g_i."""
        self._start = job.order.state
        self._constant = {n: -t for n, t in self._vault.load(SHELF, since=job.order.since).items()}

    def gradient(self, named: Mapping[str, nn.Parameter]) -> None:
        """alpha (y - x) - g_i."""
        pull(named, self._start, self.alpha)
        push(named, self._constant)

    def end(self, job: Job, leaving: State) -> State:
        """The new g_i into the vault; nothing travels."""
        held = self._vault.load(SHELF, since=job.order.since)
        moved = {n: t - job.order.state[n] for n, t in leaving.items() if t.is_floating_point()}
        new = {n: held.get(n, torch.zeros_like(d)) - self.alpha * d for n, d in moved.items()}
        self._vault.save(SHELF, {**held, **new}, order=job.order)
        return {}
