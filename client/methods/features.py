"""Feature distillation: the adapted encoder's features of each case stay near what the teacher says of it.

Adds strength * the mean, over levels and pooled embeddings, of the mean squared difference of student and teacher.
Both see the same batch, as it was drawn and augmented. MedCoSS distils with its teacher in training mode, so that its
loss is not 0 where both are equal; here the teacher is in evaluation mode.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from client.methods.base import Method
from client.methods.teacher import teacher_of
from client.training.job import Answer, Job
from client.vault.vault import Vault
from common.backbones import base
from common.model.adapted import AdaptedModel


class Features(Method):
    """Compares the features of each batch with the teacher's.

    Args:
        strength: lambda.
    """

    def __init__(self, strength: float, vault: Vault):
        self.strength = strength
        self._vault = vault
        self._teacher: AdaptedModel | None = None

    def begin(self, job: Job) -> None:
        """Load the teacher."""
        self._teacher = teacher_of(job, self._vault)

    def loss(self, answer: Answer) -> Tensor | None:
        """lambda mean |f(x) - f*(x)|^2."""
        assert self._teacher is not None
        with torch.no_grad():
            before = self._teacher.encode(answer.batch.inputs, answer.batch.present)
        return self.strength * distance(before, answer.features)


def distance(before: base.Features, now: base.Features) -> Tensor:
    """The mean squared difference of each level and each pooled embedding, averaged over these."""
    pairs = [*zip(before.pyramid, now.pyramid, strict=True)]
    pairs += [(before.pooled[name], now.pooled[name]) for name in sorted(before.pooled)]
    return torch.stack([F.mse_loss(b.float(), a.float()) for a, b in pairs]).mean()
