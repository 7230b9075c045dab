"""FedBN: tensors that stay at each center (Li et al., ICLR 2021); ``federation.local`` holds their patterns."""

from __future__ import annotations

from client.methods.base import Method
from client.training.job import Job
from client.vault.vault import Vault
from common.protocol.declaration import local_tensors
from common.protocol.messages import Order, State

SHELF = "local"


class Local(Method):
    """The center's own tensors take the common ones' places, and are kept after each round."""

    def __init__(self, vault: Vault):
        self._vault = vault

    def begin(self, job: Job) -> None:
        """Start from the common state with the own tensors in it."""
        job.model.load({**job.order.state, **self.own(job.order)})

    def end(self, job: Job, leaving: State) -> State:
        """The own tensors into the vault."""
        state = job.model.state()
        own = {name: state[name] for name in local_tensors(state, job.order.step)}
        self._vault.save(SHELF, own, order=job.order)
        return {}

    def own(self, order: Order) -> State:
        """The own tensors of the round named in ``since``."""
        return self._vault.load(SHELF, since=order.since)
