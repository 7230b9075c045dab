"""LwF: learning without forgetting (Li & Hoiem, ECCV 2016, equation 2), for every task whose answer is a distribution.

Adds strength * T^2 KL(teacher || student), both answers softened by the temperature T, as a mean over cases, or over
voxels. Cox's answer is one log hazard and no distribution: there it is half the squared difference, as it is of the
sides of boxes.

Four losses go under this name and differ on the same answers; this is the one with T^2 and the KL divergence, whose
gradient does not shrink as T grows (Hinton et al. 2015) and which is 0 where teacher and student agree.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from client.methods.teacher import Taught
from client.training.job import Answer
from client.vault.vault import Vault
from common.config.task import GroundingTask, PrognosisTask
from common.tasks.prognosis import COX, deephit_scores, mtlr_scores

BOXES = "boxes"
SCORES = {"deephit": deephit_scores, "mtlr": mtlr_scores}  # logits to those of every cut and of the time after them


class Lwf(Taught):
    """Compares each batch's answer with the teacher's.

    Args:
        strength: lambda.
        temperature: T, above 0.
    """

    def __init__(self, strength: float, vault: Vault, *, temperature: float = 2.0):
        super().__init__(strength, vault)
        self.temperature = temperature

    def loss(self, answer: Answer) -> Tensor | None:
        """lambda T^2 KL(teacher || student)."""
        teacher, batch = self.teacher, answer.batch
        with torch.no_grad():
            same = answer.model.encoder_is_frozen  # then the encoder is the teacher's own
            features = answer.features if same else teacher.encode(batch.inputs, batch.present)
            before = teacher.decode(features, batch.inputs, batch.present).float()
        return self.strength * distance(answer.model.step.task, before, answer.output, temperature=self.temperature)


def distance(task: object, before: Tensor, now: Tensor, *, temperature: float) -> Tensor:
    """T^2 KL(before || now) of a task's outputs (B, K) or (B, K, D, H, W); a number, 0 where they are equal.

    Args:
        task: its spec; says which distribution the outputs are of.
    """
    form = _form(task)
    if form == BOXES:  # each word's answer is a distribution, the sides of boxes are none
        sides = task.sides  # type: ignore[attr-defined]
        words = temperature**2 * _apart(before[:, :-sides] / temperature, now[:, :-sides] / temperature).mean()
        return words + F.mse_loss(now[:, -sides:], before[:, -sides:]) / 2
    if form == COX:
        return F.mse_loss(now, before) / 2
    if form in SCORES:
        before, now = SCORES[form](before), SCORES[form](now)
    before, now = before / temperature, now / temperature
    each = _apart(before, now) if form == "apart" else _exclusive(before, now)
    return temperature**2 * each.mean()


def _form(task: object) -> str:
    if isinstance(task, GroundingTask):
        return BOXES
    if isinstance(task, PrognosisTask):
        return "apart" if task.loss == "hazard" else task.loss
    return "apart" if getattr(task, "form", "multi_class") != "multi_class" else "exclusive"


def _exclusive(before: Tensor, now: Tensor) -> Tensor:
    """KL between softmax distributions over dimension 1."""
    before, now = before.log_softmax(dim=1), now.log_softmax(dim=1)
    return (before.exp() * (before - now)).sum(dim=1)


def _apart(before: Tensor, now: Tensor) -> Tensor:
    """KL between Bernoulli distributions, one for each logit, summed over dimension 1."""
    yes = before.sigmoid() * (F.logsigmoid(before) - F.logsigmoid(now))
    no = (-before).sigmoid() * (F.logsigmoid(-before) - F.logsigmoid(-now))
    return (yes + no).sum(dim=1)
