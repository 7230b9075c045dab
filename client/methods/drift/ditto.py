"""Ditto: a personal model at each center (Li et al., ICML 2021, algorithm 1).

The personal model v minimizes f(v) + lambda / 2 |v - x|^2, x being the round's common start. It is trained after the
common update is made; the common model does not notice.
"""

from __future__ import annotations

from client.methods.base import Method
from client.methods.drift.proximal import Proximal
from client.training.job import Job, prepare
from client.training.loop import fit
from client.vault.vault import Vault
from common.protocol.messages import Order, State

SHELF = "personal"


class Ditto(Method):
    """A whole model that never leaves.

    Args:
        strength: lambda.
    """

    def __init__(self, strength: float, vault: Vault):
        self.strength = strength
        self._vault = vault

    def end(self, job: Job, leaving: State) -> State:
        """One more round over the same batches, for the personal model; then into the vault."""
        model, order = job.model, job.order
        model.train_in_round(None)  # all factors: rules that alternate them are for the common model
        model.load(self.own(order) or order.state)
        pulled = [Proximal(self.strength)]
        fit(prepare(order, model, job.task, job.cases, code=job.code, methods=pulled, autocast=job.autocast))
        self._vault.save(SHELF, model.state(), order=order)
        return {}

    def own(self, order: Order) -> State:
        """The personal model of the round named in ``since``; empty before the first."""
        return self._vault.load(SHELF, since=order.since)
