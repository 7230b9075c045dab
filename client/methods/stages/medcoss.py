"""MedCoSS: what earlier stages taught is kept by distilling features of a few of their cases (Ye et al., CVPR 2024).

Of each earlier stage a center keeps the cases nearest to the centers of k-means in the features of the model that the
later stage began with; they are chosen once, and only keyed hashes of them are kept. Between the batches of the current
stage come batches of one kept source: the encoder is to say of a mixed and masked view of them what the frozen model
of the last stage says of the same view. A batch is drawn with replacement, and there is at least one in each round, so
that a small site rehearses too.

Departures from the released code: teacher, student and selector are in evaluation mode, so that equal models have a
loss of 0 to the bit; one step of the optimizer has one source; a unit is a case, a volume or a report of one patient.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from client.methods.base import Method
from client.methods.rehearsal import drawn
from client.methods.stages.kmeans import selected
from client.methods.stages.mixup import mixed
from client.methods.stages.turns import between, in_evaluation, some_of
from client.methods.teacher import teacher_of
from client.training.batches import Cases, Item, Turn
from client.training.job import Job
from client.vault.memory import remember, remembered, shared
from client.vault.vault import Vault
from common.backbones.base import Backbone
from common.backbones.vision.dimension_free import real_mean
from common.config.methods.continual import MedcossMethod
from common.config.step import Step
from common.config.task import MaskedTask
from common.data.sources import Source, source_of
from common.errors import FedgraftError
from common.model.adapted import AdaptedModel
from common.model.masking import View, as_form, drawn_noise, hide, look
from common.protocol.messages import Order
from common.seeding import generator_for


class StageProblem(FedgraftError):
    """Earlier stages cannot be rehearsed here: the code travels, the sentence stays on site."""

    code = "stages"


class Medcoss(Method):
    """One center's end.

    Args:
        spec: which stages are rehearsed, and how.
    """

    def __init__(self, spec: MedcossMethod, vault: Vault):
        self.spec = spec
        self._vault = vault
        self._job: Job | None = None
        self._teacher: AdaptedModel | None = None
        self._kept: dict[str, tuple[Cases, list[int]]] = {}  # stage -> its cases here, and the places of those kept

    def begin(self, job: Job) -> None:
        """Load the teacher, and choose or find again what is rehearsed of each earlier stage."""
        if not self.spec.stages:
            return
        if job.others is None:
            raise StageProblem(
                f"Step '{job.order.step.name}' rehearses earlier stages, which takes a center with its own cases; this "
                "training has no such cases. Leave method medcoss out here."
            )
        self._job, self._teacher = job, teacher_of(job, self._vault)
        for text in self.spec.stages:
            cases = job.others(earlier_stage(job.order.step, text))
            places = self._places(text, cases)
            if places:
                self._kept[text] = (cases, places)

    def batches(self, stream: Iterable[Item | Turn]) -> Iterator[Item | Turn]:
        """The stage's batches with those of earlier stages between them, by the share that is asked for."""
        share = self.spec.share if self._kept else 0.0
        return between(stream, self._turns(), share=share, at_least=int(share > 0))

    def _places(self, text: str, cases: Cases) -> list[int]:
        """Where the cases that are kept of a stage stand among those that are here now."""
        path = shared(self._vault, source_of(text).name)
        known = remembered(self._vault, cases.cases, path=path)
        if known is None:
            known = [cases.cases[place] for place in self._chosen(text, cases)]
            remember(self._vault, known, path=path)
        patients = {case.patient for case in known}
        return [place for place, case in enumerate(cases.cases) if case.patient in patients]

    def _chosen(self, text: str, cases: Cases) -> list[int]:
        order = self._order
        if self.spec.select == "kmeans":
            return selected(self._features(text, cases), clusters=self.spec.clusters, kept=self.spec.kept)
        number = max(1, round(self.spec.kept * len(cases))) if len(cases) else 0
        drawing = generator_for(order.seed, "medcoss", text, self._working.code)
        return drawn(range(len(cases)), number, generator=drawing)

    @torch.no_grad()
    def _features(self, text: str, cases: Cases) -> np.ndarray:
        """What the teacher says of each case when it sees all of it, (N, C)."""
        assert self._teacher is not None
        source, rows = source_of(text), []
        for positions in cases.in_order(self._order.step.training.batch):
            values = cases.collate(positions).inputs[source.modality].to(self._teacher.device)
            rows.append(whole(self._teacher.backbone, as_form(values, source, in_training=False)).cpu())
        return torch.cat(rows).numpy() if rows else np.zeros((0, self._teacher.backbone.image_dim))

    def _turns(self) -> Iterator[Turn]:
        """Batches of one kept source each, drawn with replacement, for ever."""
        order, step = self._order, self._order.step
        drawing = generator_for(order.seed, step.name, self._working.code, order.round, "medcoss")
        numbers = torch.tensor([float(len(places)) for _, places in self._kept.values()])
        while True:
            text = list(self._kept)[int(torch.multinomial(numbers, 1, generator=drawing))]
            cases, places = self._kept[text]
            batch = some_of(cases, places, step.training.batch, generator=drawing).to(self._working.model.device)
            source = source_of(text)
            view = self._view(batch.inputs[source.modality], source, drawing)
            yield Turn(partial(self._distilled, view))

    def _view(self, values: Tensor, source: Source, generator: torch.Generator) -> View:
        """What teacher and student are both shown: masked, and mixed within its source."""
        model = self._working.model
        shown = as_form(values, source, in_training=True)
        noise = drawn_noise(shown, source, model.backbone.patch[0], in_training=True)
        view, _ = hide(shown, source, noise=noise, share=0.0)
        return replace(view, values=mixed(view.values, generator=generator)) if self.spec.mixup else view

    def _distilled(self, view: View) -> Tensor:
        assert self._teacher is not None
        return self.spec.strength * distilled(self._working.model, self._teacher, view)

    @property
    def _working(self) -> Job:
        assert self._job is not None  # `begin` comes first
        return self._job

    @property
    def _order(self) -> Order:
        return self._working.order


def earlier_stage(step: Step, text: str) -> Step:
    """A step that sees an earlier stage's source as this step's view shows it."""
    return replace(step, task=MaskedTask(sources=[text]), modalities=[source_of(text).modality], methods=[])


def distilled(student: AdaptedModel, teacher: AdaptedModel, view: View) -> Tensor:
    """Mean squared difference of all tokens of one view, both models in evaluation mode: 0 to the bit where equal."""
    with torch.no_grad():
        before = look(teacher.backbone, view)
    with in_evaluation(student):
        now = look(student.backbone, view)
    return F.mse_loss(now.float(), before.float())


def whole(backbone: Backbone, values: Tensor) -> Tensor:
    """Mean over all tokens (B, C), nothing hidden; of a report over its words."""
    tokens = look(backbone, View(values, None))
    return real_mean(tokens, values) if values.ndim == 2 else tokens.mean(dim=1)
