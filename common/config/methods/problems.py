"""What is wrong with the methods that a step lists, as finished sentences."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from common.config.adapter import INSIDE, role_of
from common.config.limits.patterns import matches_any
from common.config.methods import CONTINUAL, METHODS, TAUGHT, methods_asked
from common.config.methods.continual import RehearsalMethod
from common.config.methods.parts import keeping_problems, merge_problems, part_problems, unkept
from common.config.methods.rows import inflora_problems, row_problems
from common.config.options import AVERAGED, CENTER
from common.config.run import Run
from common.config.step import Step

OF_A_RULE = ("feddyn", "scaffold")  # their other end is the aggregation rule of the same name
OF_TRAINING = {"averaged_moments": AVERAGED, "kept_moments": CENTER}  # kind -> training.moments that asks for it
LEAST: dict[str, tuple[float, float, str]] = {  # option -> least, most, in words
    "density": (1e-9, 1.0, "above 0 and at most 1"),
    "scale": (-1e6, 1e6, "a number from -1e6 to 1e6"),
    "energy": (0.0, 1.0, "from 0 to 1"),
    "decay": (0.0, 1 - 1e-9, "0 or more and below 1: at 1 it grows with every step"),
    "alpha": (0.0, float("inf"), "0 or more"),
    "strength": (0.0, float("inf"), "0 or more"),
    "fraction": (0.0, 1.0, "from 0 to 1"),
    "rank": (0, float("inf"), "0 or more"),
    "cases": (1, float("inf"), "1 or more"),
    "temperature": (1e-6, float("inf"), "above 0"),
}


def method_problems(step: Step, run: Run) -> Iterator[str]:
    """Methods that are there twice, cannot go together or have an option out of its range."""
    kinds = [spec.kind for spec in methods_asked(step)]
    listed = [spec.kind for spec in step.methods]
    for kind in sorted({kind for kind in kinds if kinds.count(kind) > 1} - {*OF_A_RULE, *OF_TRAINING}):
        where = f"; federation asks for {kind} by an option of its own" if listed.count(kind) == 1 else ""
        yield f"method {kind} is asked for twice{where}; once is enough."
    for kind in (kind for kind in OF_A_RULE if kind in listed):
        yield (
            f"method {kind} is one end of an aggregation rule and comes with it; take it out of methods and set "
            f"federation@steps.{step.name}.federation={kind}."
        )
    for kind, moments in ((kind, moments) for kind, moments in OF_TRAINING.items() if kind in listed):
        yield f"method {kind} comes with training.moments={moments}; take it out of methods and set that."
    others = sorted({*listed} & CONTINUAL - {"sequential"})
    if "sequential" in listed and others:
        yield f"method sequential says that nothing keeps what was known, {', '.join(others)} keeps it; use one."
    inside = [name for name, part in step.adapter.parts.items() if role_of(part) in INSIDE and _trains(step, name)]
    if "features" in listed and not inside:
        yield (
            "method features keeps the encoder's features, and no part that trains in this step is inside the encoder: "
            "nothing could change them. Add a LoRA part, or use lwf."
        )
    if "mib" in listed and not (step.task is not None and step.task.kind == "segmentation" and step.task.outlined):
        yield (
            "method mib teaches the structures that a center does not outline, and this step says of none who outlines "
            f"what: set steps.{step.name}.task.outlined to {{center: [structures]}} of a segmentation, or use lwf."
        )
    if {*listed} & TAUGHT and step.federation.kind == "newton":
        yield f"a step that is fitted exactly has no training loop for {', '.join(sorted({*listed} & TAUGHT))}."
    yield from keeping_problems(step)
    yield from part_problems(step)
    yield from inflora_problems(step)
    memories = [spec for spec in step.methods if isinstance(spec, RehearsalMethod)]
    if len(memories) > 1:
        yield "methods derpp and rehearsal keep the same memory in two ways; use one of them."
    for spec in memories:
        yield from _rehearsal(step, spec)
    for spec in step.methods:
        yield from _out_of_range(spec)


def lineage_problems(run: Run) -> Iterator[str]:
    """Steps that write a lineage which an earlier step writes: only where a method says how it goes on."""
    writers: dict[str, list[str]] = {}
    sources: dict[str, str | None] = {}
    for name, step in run.steps.items():
        lineage, listed = step.writes or name, [spec.kind for spec in step.methods if _goes_on(spec.kind)]
        before = writers.setdefault(lineage, [])
        if before and not listed:
            yield (
                f"Step '{name}' writes lineage '{lineage}', which '{before[-1]}' writes before it, and nothing says "
                f"how that goes on: set steps.{name}.methods to one or more of {', '.join(sorted(CONTINUAL))}, or let "
                f"it write its own (steps.{name}.writes=null with steps.{name}.starts_from={before[-1]})."
            )
        if before and step.starts_from is not None and step.starts_from not in before:
            yield (
                f"Step '{name}' goes on with lineage '{lineage}' but starts from '{step.starts_from}', which does not "
                f"write it; a lineage goes on from its own head (steps.{name}.starts_from=null)."
            )
        if before and step.federation.kind == "newton":
            yield (
                f"Step '{name}' is fitted exactly from its own patients' sums, which goes on with nothing; let it "
                f"write a lineage of its own (steps.{name}.writes=null)."
            )
        taught = sorted({spec.kind for spec in step.methods} & (TAUGHT | {"rehearsal"}))
        if taught and not before and step.starts_from is None and step.stands_on is None:
            yield (
                f"Step '{name}' lists {', '.join(taught)}, which keeps what was known, and starts from the seed, where "
                f"nothing was: set steps.{name}.starts_from or stands_on, or steps.{name}.writes to an earlier step's "
                "lineage."
            )
        for spec in (spec for spec in step.methods if spec.kind == "merge"):
            yield from merge_problems(run, name, spec, begun=bool(before))
        sources[name] = step.starts_from or (before[-1] if before else None)
        yield from unkept(run, name, sources[name])
        yield from row_problems(run, name, sources)
        before.append(name)


def _out_of_range(spec: Any) -> Iterator[str]:
    for option, (least, most, words) in LEAST.items():
        value = getattr(spec, option, None)
        if value is not None and not least <= value <= most:
            yield f"method {spec.kind} has {option} {value:g}; it must be {words}."


def _rehearsal(step: Step, spec: RehearsalMethod) -> Iterator[str]:
    named = "*" not in step.centers
    strangers = sorted({*spec.at} - {*step.centers}) if named else []
    if strangers:
        yield (
            f"method {spec.kind} is at {', '.join(strangers)}, not among the step's centers {step.centers}; a center "
            "that rehearses takes part, so name it there too."
        )
    if named and spec.at and {*step.centers} <= {*spec.at}:
        yield "method rehearsal is at every center of the step, so nobody would train anything new; name one that does."


def _goes_on(kind: str) -> bool:
    """Whether a method says how a lineage goes on: a plugin's own may."""
    return kind in CONTINUAL or kind not in METHODS.shipped


def _trains(step: Step, part: str) -> bool:
    return matches_any(part, step.train_parts)
