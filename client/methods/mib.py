"""MiB: what a center does not outline is taught by the model that the step began with (Cermelli et al., CVPR 2020).

A center that outlines only some structures says nothing of the others: its background may hold them. The task's loss
there counts them as background or themselves (`common.tasks.segmentation`); this method adds strength * KL(teacher ||
student) / classes, a mean over voxels, over the structures that the center does not outline and all the rest as one
class, which is the background and what is outlined. Where a center outlines all, it adds exactly 0.

The paper's loss is the cross-entropy, which is the same but for the teacher's own entropy, and so is not 0 where both
agree; ConDistFL (Wang et al., 2023) has the same idea in a federation.
"""

from __future__ import annotations

import torch
from torch import Tensor

from client.methods.teacher import Taught
from client.training.job import Answer
from common.tasks.segmentation import KNOWN


class Mib(Taught):
    """Compares the answers on what is not outlined.

    Args:
        strength: weight of the divergence.
    """

    def loss(self, answer: Answer) -> Tensor | None:
        """Nothing where every case's center outlines all."""
        batch = answer.batch
        if KNOWN not in batch.target or self.strength == 0:
            return None
        known = batch.target[KNOWN].bool()
        if bool(known.all()):
            return None
        with torch.no_grad():
            before = self.teacher(batch.inputs, batch.present).float()
        each = [untold(before[row : row + 1], answer.output[row : row + 1], known[row]) for row in range(len(known))]
        return self.strength * torch.stack(each).mean()


def untold(before: Tensor, now: Tensor, known: Tensor) -> Tensor:
    """KL(before || now) / classes, a mean over voxels, of logits (1, 1 + S, ...): over the structures that are not
    known, and the others and the background as one class.

    Args:
        known: bool (S,).
    """
    before, now = (_others_as_one(logits.log_softmax(dim=1), known) for logits in (before, now))
    return (before.exp() * (before - now)).sum(dim=1).mean() / before.shape[1]


def _others_as_one(logs: Tensor, known: Tensor) -> Tensor:
    told = torch.cat([known.new_ones(1), known]).to(logs.device)
    return torch.cat([logs[:, told].logsumexp(dim=1, keepdim=True), logs[:, ~told]], dim=1)
