"""What InfLoRA asks of a step's parts, its other methods and the steps before it, as finished sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from common.adapters.lowrank import FFA, lora_rule
from common.config.limits.patterns import matches_any
from common.config.run import Run
from common.config.step import Step

INFLORA = "inflora"
BESIDE = {  # method -> why it and InfLoRA cannot go together
    "merge": "fills every row of a LoRA part, and inflora needs rows that no step has used",
    "olora": "turns factor A, which inflora makes before the first round and lets rest",
    "projection": "holds factor B by what factor A let through before later steps made rows of it anew",
}


def inflora_problems(step: Step) -> Iterator[str]:
    """What keeps a step's rows from being its own."""
    listed = {spec.kind for spec in step.methods}
    if INFLORA not in listed:
        return
    for kind in sorted(listed & BESIDE.keys()):
        yield f"methods inflora and {kind} cannot go together: {kind} {BESIDE[kind]}; use one of them."
    parts = _training(step)
    if not parts:
        yield "method inflora makes rows of a LoRA part, and none trains in this step; add one, or use ewc or lwf."
    for name, part in parts.items():
        if part.dora:
            place = _place(step, name)
            yield f"method inflora cannot hold DoRA, whose norms change every answer; set {place}.dora=false."
        elif lora_rule(part) != FFA:
            yield (
                f"method inflora makes factor A before the first round and lets it rest, and part '{name}' has rule "
                f"{lora_rule(part)}; set {_place(step, name)}.rule={FFA}."
            )


def row_problems(run: Run, name: str, sources: Mapping[str, str | None]) -> Iterator[str]:
    """Where the steps of a lineage ask for more rows than a part has.

    Args:
        sources: step -> the step of the run that it starts from.
    """
    step = run.steps[name]
    asked = _rows(step)
    for part, spec in _training(step).items() if asked else ():
        used = _used(run, sources[name], sources, rank=spec.rank)
        if used + asked > spec.rank:
            yield (
                f"Step '{name}' makes rows {used + 1} to {used + asked} of part '{part}' its own by method inflora, "
                f"and the part has {spec.rank}: set {_place(step, part)}.rank to {used + asked} or more in every step "
                "of the lineage, or the method's rank to less."
            )


def _used(run: Run, source: str | None, sources: Mapping[str, str | None], *, rank: int) -> int:
    """Rows that the steps before have used; all, where one trained the part whole."""
    used = 0
    while source in run.steps:
        listed = {spec.kind for spec in run.steps[source].methods}
        used += _rows(run.steps[source]) if INFLORA in listed else 0
        used = rank if INFLORA in listed and not _rows(run.steps[source]) else used
        source = sources.get(source)
    return min(used, rank)


def _rows(step: Step) -> int:
    return sum(spec.rank for spec in step.methods if spec.kind == INFLORA)


def _training(step: Step) -> dict[str, Any]:
    parts = step.adapter.parts.items()
    return {name: part for name, part in parts if part.kind == "lora" and matches_any(name, step.train_parts)}


def _place(step: Step, part: str) -> str:
    return f"steps.{step.name}.adapter.parts.{part}"
