"""Feature distillation: the adapted encoder's features of each case stay near what the teacher says of it.

Adds strength * the mean, over levels and pooled embeddings, of the mean squared difference of student and teacher.
Both see the same batch, as it was drawn and augmented. MedCoSS distils with its teacher in training mode, so that its
loss is not 0 where both are equal; here the teacher is in evaluation mode.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from client.methods.teacher import Taught
from client.training.job import Answer
from common.backbones import base


class Features(Taught):
    """Compares the features of each batch with the teacher's.

    Args:
        strength: lambda.
    """

    def loss(self, answer: Answer) -> Tensor | None:
        """lambda mean |f(x) - f*(x)|^2."""
        with torch.no_grad():
            before = self.teacher.encode(answer.batch.inputs, answer.batch.present)
        return self.strength * distance(before, answer.features)


def distance(before: base.Features, now: base.Features) -> Tensor:
    """The mean squared difference of each level and each pooled embedding, averaged over these."""
    pairs = [*zip(before.pyramid, now.pyramid, strict=True)]
    pairs += [(before.pooled[name], now.pooled[name]) for name in sorted(before.pooled)]
    return torch.stack([F.mse_loss(b.float(), a.float()) for a, b in pairs]).mean()
