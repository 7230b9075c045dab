"""MedSeqFT: a sequence of tasks, each fitted to the model that the last one left (Ye et al., arXiv 2509.06096).

No code of the authors is public; what stands here is built from the two stages that the paper names. Stage one
(`Medseqft`) fits the whole model to a task while its features of the task's cases, and of a few cases of earlier tasks,
stay what the model before it says. Stage two (`Refinement`) starts from that earlier model again, adds low-rank
updates that learn to say what the fitted model says, and is merged into the base: the next task begins there.

Which cases of an earlier task are kept is chosen once, by `client.methods.stages.similarity` under the original model,
or at random as a control. Keyed hashes of them are all that is kept, and nothing of them leaves.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from functools import partial

import torch
from torch import Tensor

from client.methods.base import Method
from client.methods.features import distance
from client.methods.rehearsal import drawn
from client.methods.stages.medcoss import StageProblem
from client.methods.stages.similarity import foreground, losses, most_similar
from client.methods.stages.turns import between, in_evaluation, some_of
from client.training.batches import Cases, Item, Turn
from client.training.job import Answer, Job, Stages
from client.vault.memory import remember, remembered, shared
from client.vault.vault import Vault
from common.config.methods.continual import MedseqftMethod, RefinementMethod
from common.config.step import Step
from common.data.batch import Batch
from common.data.sources import named_sources
from common.model.adapted import AdaptedModel
from common.seeding import generator_for

SIMILARITY = "similarity"
log = logging.getLogger("fedgraft.center")


class Medseqft(Method):
    """One center's end of stage one.

    Args:
        spec: how strongly, and how many cases of each earlier task.
    """

    def __init__(self, spec: MedseqftMethod, vault: Vault):
        self.spec = spec
        self._vault = vault
        self._job: Job | None = None
        self._teacher: AdaptedModel | None = None
        self._kept: list[tuple[Cases, list[int]]] = []  # of each earlier task: its cases here, and places of those kept

    def begin(self, job: Job) -> None:
        """The model that the step stands on becomes the teacher; cases of earlier tasks are chosen or found again."""
        stages = _stages_of(job)
        assert job.another is not None and job.others is not None  # with stages there are both
        self._job, self._teacher = job, job.another().eval().requires_grad_(False)
        for key in job.order.merged:
            step = stages.step(key)
            if step.task.kind == job.order.step.task.kind:
                cases = job.others(step)
                kept = self._chosen_of(step, cases, stages)
                self._kept.append((cases, [p for p, case in enumerate(cases.cases) if case.patient in kept]))
        self._kept = [(cases, places) for cases, places in self._kept if places]

    def loss(self, answer: Answer) -> Tensor | None:
        """lambda |f(x) - f_before(x)|^2 on the task's own cases."""
        assert self._teacher is not None
        with torch.no_grad():
            before = self._teacher.encode(answer.batch.inputs, answer.batch.present)
        return self.spec.strength * distance(before, answer.features)

    def batches(self, stream: Iterable[Item | Turn]) -> Iterator[Item | Turn]:
        """The task's batches, with turns on kept cases between them by the share that is asked for."""
        return between(stream, self._turns(), share=self.spec.share if self._kept else 0.0)

    def _chosen_of(self, step: Step, cases: Cases, stages: Stages) -> set[str]:
        """Patients of an earlier task that are kept here, the same in each later step."""
        path = shared(self._vault, f"{step.name}-{self.spec.select}-{self.spec.cases}")
        known = remembered(self._vault, cases.cases, path=path)
        if known is None:
            if len(cases.cases) < self.spec.cases:
                raise StageProblem(
                    f"Method medseqft keeps {self.spec.cases} cases of '{step.name}', and this center has "
                    f"{len(cases.cases)} for it: set its cases to {max(len(cases.cases), 1)} or fewer."
                )
            chosen = (
                self._most_similar(step, cases, stages) if self.spec.select == SIMILARITY else self._drawn(step, cases)
            )
            known = [case for case in cases.cases if case.patient in chosen]
            remember(self._vault, known, path=path)
        return {case.patient for case in known}

    def _most_similar(self, step: Step, cases: Cases, stages: Stages) -> list[str]:
        job = self._working
        original = stages.model(job.order.teacher)
        assert job.others is not None
        shown, here = job.others(original.step), {case.patient for case in cases.cases}
        scores = {p: loss for p, loss in losses(original, shown, draws=self.spec.draws).items() if p in here}
        chosen = most_similar(scores, kept=self.spec.cases)
        source = named_sources(original.step.task.sources)[0]
        log.info(
            "step=%s kept=%d of=%d loss=%.4f loss_of_all=%.4f foreground=%.3f foreground_of_all=%.3f",
            step.name, len(chosen), len(scores), _mean(scores[p] for p in chosen), _mean(scores.values()),
            foreground(shown, chosen, source), foreground(shown, list(scores), source),
        )  # fmt: skip
        return chosen

    def _drawn(self, step: Step, cases: Cases) -> list[str]:
        """As many at random: the control of the choice."""
        drawing = generator_for(self._working.order.seed, "medseqft", step.name, self._working.code)
        return [case.patient for case in drawn(cases.cases, self.spec.cases, generator=drawing)]

    def _turns(self) -> Iterator[Turn]:
        """Batches of kept cases of one earlier task each, drawn with replacement, for ever."""
        job = self._working
        step = job.order.step
        drawing = generator_for(job.order.seed, step.name, job.code, job.order.round, "medseqft")
        while True:
            cases, places = self._kept[int(torch.randint(len(self._kept), (), generator=drawing))]
            batch = some_of(cases, places, step.training.batch, generator=drawing)
            batch = windowed(batch, step.view.window)
            yield Turn(partial(self._distilled, batch.to(job.model.device)))

    def _distilled(self, batch: Batch) -> Tensor:
        assert self._teacher is not None
        return self.spec.strength * said_apart(self._working.model, self._teacher, batch)

    @property
    def _working(self) -> Job:
        assert self._job is not None  # `begin` comes first
        return self._job


class Refinement(Method):
    """One center's end of stage two: features of each case become what the fitted model says of it."""

    def __init__(self, spec: RefinementMethod, vault: Vault):
        self.spec = spec
        self.replaces_task = not spec.labels
        self._teacher: AdaptedModel | None = None

    def begin(self, job: Job) -> None:
        """Load the fitted model, frozen, in evaluation mode."""
        self._teacher = _stages_of(job).model(job.order.teacher).requires_grad_(False)

    def loss(self, answer: Answer) -> Tensor | None:
        """lambda |f(x) - f_fitted(x)|^2."""
        assert self._teacher is not None
        with torch.no_grad():
            fitted = self._teacher.encode(answer.batch.inputs, answer.batch.present)
        return self.spec.strength * distance(fitted, answer.features)


def said_apart(student: AdaptedModel, teacher: AdaptedModel, batch: Batch) -> Tensor:
    """Mean squared difference of what two models say of a batch, both in evaluation mode: 0 to the bit where equal."""
    with torch.no_grad():
        before = teacher.encode(batch.inputs, batch.present)
    with in_evaluation(student):
        return distance(before, student.encode(batch.inputs, batch.present))


def windowed(batch: Batch, window: Iterable[int]) -> Batch:
    """The middle window of each volume: kept cases are shown by one rule, without looking at a label."""
    sides = list(window)

    def middle(values: Tensor) -> Tensor:
        if values.ndim != 5:
            return values
        for axis, side in enumerate(sides, start=2):
            values = (
                values.narrow(axis, (values.shape[axis] - side) // 2, side) if values.shape[axis] > side else values
            )
        return values

    return Batch({name: middle(values) for name, values in batch.inputs.items()}, batch.present, {})


def _stages_of(job: Job) -> Stages:
    if job.stages is None:
        raise StageProblem(
            f"Step '{job.order.step.name}' lists a method of MedSeqFT, which needs the stages that a federation sends; "
            "this training has none. Leave the method out here."
        )
    return job.stages


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found) if found else 0.0
