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
AT = "_at_"  # in the name of a step that is tried on a share of what arrives


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
    steps: dict[str, Step] = {}
    if arm in ALONE:
        for arrival in arrivals:
            for step in (*_tried(learn, arrival, study, after=None), _step(learn, arrival.name, [arrival])):
                steps[step.name] = step
        return steps
    if arm in (JOINT, FEW):
        together = _step(learn, TOGETHER, arrivals)
        together.methods = [METHODS["few_shot"](cases=study.shots)] if arm == FEW else []
        return {TOGETHER: together}
    for number, arrival in enumerate(arrivals):
        after = arrivals[number - 1].name if number else None
        steps |= {step.name: step for step in _tried(learn, arrival, study, after=after)}
        before = arrivals[:number] if arm in MEMORIES else []
        step = _step(learn, arrival.name, [*before, arrival])
        step.writes, step.methods = LINEAGE, [_method(arm, before, arrival, study, first=number == 0)]
        steps[arrival.name] = step
    if arm == INFLORA:
        _share_rows(steps)
    return steps


def at_share(arrival: Arrival, share: float) -> str:
    """The name of the step that is tried on a share of what arrives."""
    return f"{arrival.name}{AT}{round(100 * share)}"


def _tried(learn: Step, arrival: Arrival, study: ContinualStudy, *, after: str | None) -> list[Step]:
    """Steps beside an arrival's own, each on a share of the cases, from where that starts: plainly trained, and nothing
    goes on from them."""
    found = []
    for share in study.shares:
        step = _step(learn, at_share(arrival, share), [arrival])
        step.starts_from, step.methods = after, [METHODS["few_shot"](fraction=share)]
        found.append(step)
    return found


def _share_rows(steps: Mapping[str, Step]) -> None:
    """InfLoRA's steps share a LoRA part's rows alike; its factor A is made before a round and rests."""
    own = [step for step in steps.values() if step.writes == LINEAGE]
    for step in own:
        ranks = [part.rank for part in step.adapter.parts.values() if part.kind == "lora"]
        step.methods[0].rank = min(ranks, default=0) // len(own)
    for step in steps.values():
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
