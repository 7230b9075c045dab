"""Arms: the steps of one run for each way to learn what arrives one after another, all copies of one step."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from common.adapters.lowrank import FFA
from common.config.methods import KEEPING, METHODS
from common.config.step import Step
from simulations.studies.options.continual import ContinualStudy

ALONE = DEDICATED, SPECIALIZED = ("dedicated", "specialized")  # each study's word for an adapter of its own
JOINT, FEW = "joint", "joint k-shot"
MEMORIES = ("derpp", "rehearsal")
INFLORA = "inflora"
LINEAGE, TOGETHER = "shared", "together"


@dataclass(frozen=True)
class Arrival:
    """What one step of a sequence brings.

    Args:
        name: of the step.
        centers: that hold it.
        structure: that is learned; None: those of the study's step.
    """

    name: str
    centers: tuple[str, ...]
    structure: str | None = None


def by_center(study: ContinualStudy) -> list[Arrival]:
    """Domain-incremental: the same question, other centers in each step."""
    return [Arrival(f"after_{'_'.join(centers)}", tuple(centers)) for centers in study.arrivals]


def by_task(study: Any) -> list[Arrival]:
    """Task-incremental: another structure in each step, outlined at that step's centers alone."""
    return [
        Arrival(f"finds_{structure}", tuple(centers), structure)
        for structure, centers in zip(study.tasks, study.arrivals, strict=False)
    ]


def steps_of(arm: str, learn: Step, arrivals: Sequence[Arrival], study: ContinualStudy) -> dict[str, Step]:
    """The steps of an arm's run, in order."""
    if arm in ALONE:
        return {arrival.name: _step(learn, arrival.name, [arrival]) for arrival in arrivals}
    if arm in (JOINT, FEW):
        together = _step(learn, TOGETHER, arrivals)
        together.methods = [METHODS["few_shot"](cases=study.shots)] if arm == FEW else []
        return {TOGETHER: together}
    steps = {}
    for number, arrival in enumerate(arrivals):
        before = arrivals[:number] if arm in MEMORIES else []
        step = _step(learn, arrival.name, [*before, arrival])
        step.writes, step.methods = LINEAGE, [_method(arm, before, arrival, study, first=number == 0)]
        steps[arrival.name] = step
    if arm == INFLORA:
        _share_rows(steps)
    return steps


def _share_rows(steps: Mapping[str, Step]) -> None:
    """InfLoRA's steps share a LoRA part's rows alike; its factor A is made before a round and rests."""
    for step in steps.values():
        ranks = [part.rank for part in step.adapter.parts.values() if part.kind == "lora"]
        step.methods[0].rank = min(ranks, default=0) // len(steps)
        for part in (part for part in step.adapter.parts.values() if part.kind == "lora"):
            part.rule = FFA


def _step(learn: Step, name: str, arrivals: Sequence[Arrival]) -> Step:
    """The study's step at the centers of some arrivals; each learns the structure that it outlines."""
    step = copy.deepcopy(learn)
    step.name, step.centers = name, list(dict.fromkeys(c for a in arrivals for c in a.centers))
    structures = [a.structure for a in arrivals if a.structure is not None]
    if structures:
        step.evaluate_at = list(step.centers)
        step.task.structures = structures
        step.task.outlined = {c: [a.structure for a in arrivals if c in a.centers] for c in step.centers}
        for option in ("phrases", "attributes"):
            given = getattr(step.task, option)
            setattr(step.task, option, {name: said for name, said in given.items() if name in structures})
    return step


def _method(arm: str, before: Sequence[Arrival], arrival: Arrival, study: ContinualStudy, *, first: bool) -> Any:
    """A step's method by its name: with the study's memory at earlier centers, or with its strength."""
    if first and arm not in KEEPING:
        return METHODS["sequential"]()
    if arm in MEMORIES:
        earlier = [c for c in dict.fromkeys(c for a in before for c in a.centers) if c not in arrival.centers]
        return METHODS[arm](at=earlier, cases=study.memory)
    method = METHODS[arm]()
    if arm in study.strengths:
        method.strength = study.strengths[arm]
    return method
