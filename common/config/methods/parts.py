"""What methods that look at single weights ask of a step's parts, and of the steps before it, as finished sentences."""

from __future__ import annotations

from collections.abc import Iterator

from common.adapters.lowrank import FEDIT, FEDSB, FFA, ROLORA, WITH_SIDE, lora_rule
from common.config.limits.patterns import matches_any
from common.config.methods import KEEPING
from common.config.methods.continual import MergeMethod
from common.config.options import MERGES, OVERLAPS
from common.config.run import Run
from common.config.step import Step
from common.data.batch import RECORD

COX = "cox"
ALIKE = ("ewc", "online_ewc")  # one of them says how steps are added up


def keeping_problems(step: Step) -> Iterator[str]:
    """What is wrong with methods that ask for sums at the step's end."""
    kinds = {spec.kind for spec in step.methods} & KEEPING
    if kinds >= {*ALIKE}:
        yield f"methods {' and '.join(ALIKE)} add the same Fishers up in two ways; use one of them."
    if kinds and step.federation.kind == "newton":
        yield f"a step that is fitted exactly has no training loop for {', '.join(sorted(kinds))}."
    if kinds & {*ALIKE} and getattr(step.task, "loss", "") == COX:
        yield (
            f"method {sorted(kinds & {*ALIKE})[0]} sums each patient's own gradient, and Cox's loss only compares "
            f"patients: alone none has one. Use steps.{step.name}.task.loss=hazard, mtlr or deephit, or lwf."
        )


def part_problems(step: Step) -> Iterator[str]:
    """What methods that look at single weights ask of the parts around them."""
    for spec in step.methods:
        if spec.kind in ("inflora", "projection") and RECORD in step.modalities:
            yield (
                f"method {spec.kind} sends second moments of layer inputs, and a record's columns can be of one "
                f"patient; take {RECORD} out of modalities, or use ewc or lwf."
            )
        if spec.kind == "projection":
            yield from _projection(step)
        elif spec.kind == "olora":
            yield from _olora(step, spec.form)


def _projection(step: Step) -> Iterator[str]:
    """Where a step of the optimizer says nothing of how far the answer moves."""
    remade = [
        f"{name} ({lora_rule(part)})"
        for name, part in step.adapter.parts.items()
        if part.kind == "lora" and _trains(step, name) and lora_rule(part) not in (FEDIT, FFA, ROLORA)
    ]
    if remade:
        yield (
            f"method projection keeps the factors' own steps off a subspace, and the rule of {', '.join(remade)} makes "
            f"factors anew; use {FEDIT}, {FFA} or {ROLORA}."
        )
    if any(part.kind == "lora" and part.dora for name, part in step.adapter.parts.items() if _trains(step, name)):
        yield "method projection cannot hold DoRA, whose norms change every answer; set dora to false."


def _olora(step: Step, form: str) -> Iterator[str]:
    loras = {name: part for name, part in step.adapter.parts.items() if part.kind == "lora"}
    training = [name for name in loras if _trains(step, name)]
    if form not in OVERLAPS:
        yield f"method olora has form '{form}'; it can be {' or '.join(OVERLAPS)}."
    if not training or len(training) == len(loras):
        yield (
            f"method olora holds a LoRA part that trains against one that rests; {', '.join(training) or 'none'} of "
            f"{', '.join(loras) or 'none'} trains here. Declare the earlier step's part and a new one, and name the "
            f"new one in steps.{step.name}.train_parts."
        )
    frozen = [name for name in training if lora_rule(loras[name]) in (FFA, FEDSB)]
    if frozen:
        named = ", ".join(frozen)
        yield f"method olora turns factor A, which the rule of {named} never trains; use {ROLORA} or {FEDIT}."


def merge_problems(run: Run, name: str, spec: MergeMethod, *, begun: bool) -> Iterator[str]:
    """What cannot be merged.

    Args:
        begun: whether an earlier step writes the lineage of this one.
    """
    earlier = list(run.steps)[: list(run.steps).index(name)]
    unknown = [one for one in spec.of if one not in earlier]
    if unknown or not spec.of:
        yield (
            f"Step '{name}' merges {', '.join(unknown) or 'nothing'}; name one or more steps before it: "
            f"{', '.join(earlier) or 'there are none'}."
        )
    if spec.how not in MERGES:
        yield f"Step '{name}' merges by '{spec.how}'; it can be {', '.join(MERGES)}."
    if begun or run.steps[name].starts_from is not None:
        yield (
            f"Step '{name}' starts from merged steps and from another one besides; let it write a lineage of its own "
            f"(steps.{name}.writes=null) and set steps.{name}.starts_from=null."
        )
    for one in [name, *(one for one in spec.of if one in earlier)]:
        parts = {n: p for n, p in run.steps[one].adapter.parts.items() if p.kind == "lora"}
        for part in (n for n, p in parts.items() if p.dora or lora_rule(p) in {FEDSB, *WITH_SIDE}):
            yield (
                f"Step '{name}' merges updates B A, and part '{part}' of '{one}' is more than that (DoRA, a middle or "
                f"a side factor); use dora=false and a rule such as {ROLORA} or {FEDIT}."
            )


def unkept(run: Run, name: str, source: str | None) -> Iterator[str]:
    """Methods that go on from what an earlier step of the run keeps only if it lists them, too."""
    if source not in run.steps:  # the seed, or a step of the run that this one continues
        return
    kept = {spec.kind for spec in run.steps[source].methods}
    for kind in sorted({spec.kind for spec in run.steps[name].methods} & KEEPING - kept):
        yield (
            f"Step '{name}' lists {kind} and starts from '{source}', which does not list it and so keeps nothing for "
            f"it: set steps.{source}.methods=[{kind}] as well, which changes nothing there but its end."
        )


def _trains(step: Step, part: str) -> bool:
    return matches_any(part, step.train_parts)
