"""InfLoRA: a step's low-rank updates read nothing that earlier steps' patients showed their layers (CVPR 2024).

Liang & Li make a branch's reading factor before it is trained: the main directions of the new patients' layer inputs,
off those that hold the earlier patients' energy. Only the writing factor is trained. Whatever it becomes, an earlier
input x is answered as before, for A x = 0.

The paper merges each branch into the weights. Here the steps of a lineage share one LoRA part: each makes the next
rows of A its own and trains the columns of B that belong to them; all others rest, in the sum. So the frozen model
stays what it is, and the part's rank is the room that a lineage has.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from client.methods.base import Method
from client.methods.brought import brought
from client.methods.projection import linear_layers, second_moments
from client.training.job import Job
from client.training.keepsakes import Kept
from client.vault.vault import Vault
from common.adapters.lowrank import A, B, pairs_of
from common.config.methods.continual import InfLoraMethod
from common.protocol.keepsakes import USED
from common.protocol.messages import Sums


class InfLora(Method):
    """One center's end; the server's, which makes the rows, is in `server.methods.inflora`.

    Args:
        spec: how many rows are a step's own.
    """

    def __init__(self, spec: InfLoraMethod, vault: Vault):
        self.spec = spec
        self._vault = vault
        self._resting: dict[str, Tensor] = {}  # state name of a B -> which of its columns rest, bool (rank,)

    def begin(self, job: Job) -> None:
        """Find which columns are this step's own."""
        used = int(brought(job, self._vault, "inflora")[USED])
        if self.spec.rank == 0:
            return
        state = job.order.state
        for pair in pairs_of(state, job.order.step.adapter.parts):
            if pair.part in job.model.trained_parts:
                resting = torch.ones(state[pair.name(B)].shape[1], dtype=torch.bool)
                resting[used : used + self.spec.rank] = False
                self._resting[pair.name(B)] = resting.to(job.model.device)
        self.changes_steps = bool(self._resting)

    @torch.no_grad()
    def gradient(self, named: Mapping[str, nn.Parameter]) -> None:
        """None for what rests: it takes no share of the norm that is clipped."""
        for name in self._resting.keys() & named.keys():
            gradient = named[name].grad
            assert gradient is not None
            gradient[:, self._resting[name]] = 0

    def step(self, named: Mapping[str, nn.Parameter], before: Mapping[str, Tensor]) -> None:
        """Put back what rests: weight decay moves it, too."""
        for name in self._resting.keys() & named.keys():
            named[name][:, self._resting[name]] = before[name][:, self._resting[name]]

    def keepsake(self, kept: Kept) -> Sums:
        """Second moments of what each factor A sees, as `client.methods.projection` sums them."""
        order = kept.order
        parts = kept.model.trained_parts
        names = {pair.name(A) for pair in pairs_of(order.state, order.step.adapter.parts) if pair.part in parts}
        return second_moments(kept, linear_layers(kept.model, names))
