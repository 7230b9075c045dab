"""DER++: who rehearses also keeps to the answers that the old model gives on its memory (Buzzega et al., NeurIPS 2020).

Centers of earlier steps take part with a memory, as with rehearsal. On it the loss is the task's own plus alpha times
the mean squared difference of the answers to those of the model with which the step began. The paper stores logits of
the augmented input as a case enters the memory, replays another augmentation against them, and draws the two terms'
cases apart. Here the vault holds who is in the memory and the old model's hash; logits are computed anew, in evaluation
mode, on the very batch that the student sees: a volume's logits are larger than the volume. Both terms are of one draw.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from client.methods.rehearsal import Rehearsal
from client.methods.teacher import teacher_of
from client.training.job import Answer, Job
from client.vault.vault import Vault
from common.config.methods.continual import DerppMethod
from common.model.adapted import AdaptedModel


class Derpp(Rehearsal):
    """A memory with its teacher; centers that do not rehearse train as ever."""

    def __init__(self, spec: DerppMethod, vault: Vault):
        super().__init__(spec, vault)
        self.alpha = spec.alpha
        self._teacher: AdaptedModel | None = None

    def begin(self, job: Job) -> None:
        """Load the teacher, where there is a memory to be taught on."""
        self._teacher = teacher_of(job, self._vault) if job.code in self.spec.at and self.alpha > 0 else None

    def loss(self, answer: Answer) -> Tensor | None:
        """alpha mean (z - z*)^2: over classes too, so that its weight falls with their number."""
        if self._teacher is None:
            return None
        batch = answer.batch
        with torch.no_grad():
            before = self._teacher(batch.inputs, batch.present).float()
        return self.alpha * F.mse_loss(answer.output, before)
