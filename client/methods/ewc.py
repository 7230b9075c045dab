"""EWC: weights that earlier steps' answers depend on stay near where these steps ended (Kirkpatrick et al., 2017).

Adds lambda / 2 sum_k sum_i F_k,i (x_i - x*_k,i)^2 over every earlier step k of the lineage. F_k is the mean, over all
patients of all centers of step k, of each one's squared gradient of -log p(label | case): the empirical Fisher's
diagonal, in evaluation mode at the state that the step kept, without any penalty. Of a segmentation's loss it is of the
cross-entropy (a mean over voxels), for Dice is no likelihood. The sum over k is one quadratic form, so what travels is
its curvature sum_k F_k and its center, however many steps there were.

Lifelong nnU-Net penalizes only the first old step from the third on, and squares the last batch's mean; neither is so
here.
"""

from __future__ import annotations

import torch
from torch import Tensor

from client.methods.base import Method
from client.methods.brought import KeepsakeProblem, brought
from client.training.job import Job
from client.training.keepsakes import Kept, squared_gradients
from client.vault.vault import Vault
from common.model.adapted import AdaptedModel
from common.protocol.keepsakes import ANCHOR, FISHER, TASKS, trained_in_step
from common.protocol.messages import State, Sums


class Ewc(Method):
    """One center's end of EWC and of online EWC; the server's is in `server.methods.ewc`.

    Args:
        kind: ``ewc`` or ``online_ewc``: how the server adds steps up.
        strength: lambda.
    """

    def __init__(self, kind: str, strength: float, vault: Vault):
        self.kind, self.strength = kind, strength
        self._vault = vault
        self._fisher: State = {}
        self._anchor: State = {}

    def begin(self, job: Job) -> None:
        """Take over curvature and center of the quadratic form."""
        found = brought(job, self._vault, self.kind)
        _check_whole(found, job, self.kind)
        device = job.model.device
        self._fisher, self._anchor = (
            {n.removeprefix(mark): t.to(device) for n, t in found.items() if n.startswith(mark)}
            for mark in (FISHER, ANCHOR)
        )

    def penalty(self, model: AdaptedModel) -> Tensor | None:
        """lambda / 2 sum_i F_i (x_i - x*_i)^2."""
        named = model.named_trainable_parameters()
        held = [name for name in self._fisher if name in named]
        if self.strength == 0 or not held:
            return None
        return self.strength / 2 * quadratic({n: named[n] for n in held}, self._fisher, self._anchor)

    def keepsake(self, kept: Kept) -> Sums:
        """Squared gradients, summed over patients."""
        names = trained_in_step(kept.order.state, kept.order.step)
        return {FISHER + name: total for name, total in squared_gradients(kept, names).items()}


def quadratic(x: dict[str, Tensor], fisher: State, anchor: State) -> Tensor:
    """sum_i F_i (x_i - x*_i)^2 over the tensors of x."""
    return torch.stack([(fisher[n] * (tensor - anchor[n]).square()).sum() for n, tensor in x.items()]).sum()


def _check_whole(found: State, job: Job, kind: str) -> None:
    marks = {mark: {n.removeprefix(mark) for n in found if n.startswith(mark)} for mark in (FISHER, ANCHOR)}
    if TASKS in found and marks[FISHER] == marks[ANCHOR] <= job.order.state.keys():
        return
    raise KeepsakeProblem(
        f"What the order brings for {kind} in step '{job.order.step.name}' is not whole: {len(marks[FISHER])} tensors "
        f"of curvature and {len(marks[ANCHOR])} of where it is measured from. Nothing was trained; server and client "
        "must run the same release."
    )
