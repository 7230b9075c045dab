"""The server's ends of methods: what centers' sums at a step's end become, and what later steps' orders bring of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from common.config.methods import methods_asked
from common.config.step import Step
from common.protocol.messages import State
from server.methods.base import Begun, End
from server.methods.ewc import EwcEnd, OnlineEwcEnd
from server.methods.inflora import InfLoraEnd
from server.methods.projection import ProjectionEnd
from server.methods.teacher import TeacherEnd

ENDS: dict[str, Callable[[Any], End]] = {
    "derpp": lambda spec: TeacherEnd(),
    "ewc": lambda spec: EwcEnd(),
    "features": lambda spec: TeacherEnd(),
    "inflora": lambda spec: InfLoraEnd(spec.energy, rank=spec.rank),
    "lwf": lambda spec: TeacherEnd(),
    "medcoss": lambda spec: TeacherEnd(),
    "mib": lambda spec: TeacherEnd(),
    "online_ewc": lambda spec: OnlineEwcEnd(decay=spec.decay),
    "projection": lambda spec: ProjectionEnd(spec.energy),
}
"""Kinds without a row have no end at the server, or one of the aggregation rules (SCAFFOLD, FedDyn)."""


def ends_of(step: Step) -> dict[str, End]:
    """Kind -> the server's end of each method of a step that has one."""
    return {spec.kind: ENDS[spec.kind](spec) for spec in methods_asked(step) if spec.kind in ENDS}


def brought(begun: Begun, kept: Mapping[str, State]) -> State:
    """What every order of a step brings for its methods.

    Args:
        kept: kind -> what the start's own step left for it.
    """
    found: State = {}
    for kind, end in ends_of(begun.step).items():
        found |= end.brings(begun, kept.get(kind, {}))
    return found


def settled(step: Step, before: State, after: State, brought: State) -> State:
    """A round's aggregate as the step's methods leave it."""
    for end in ends_of(step).values():
        after = end.settled(before, after, brought)
    return after


def remarks(begun: Begun, brought: State) -> list[str]:
    """What a step's methods say as it begins."""
    return [said for end in ends_of(begun.step).values() if (said := end.remarks(begun, brought))]
