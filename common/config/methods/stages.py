"""What is wrong with steps of self-supervised learning, as finished sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from common.config.run import Run
from common.config.step import Step
from common.data.sources import named_sources, source_problems

ENCODER = "dimension_free"
PARTS = ("full", "lora")  # what may train beside the decoders


def masked_problems(step: Step, run: Run) -> Iterator[str]:
    """A masked step's sources, its parts and its backbone fit together."""
    if not _is_masked(step):
        return
    task = step.task
    if not task.sources:
        yield "its masked task names no source; set task.sources, as in [CT] or [EHR]."
    yield from source_problems(task.sources, where="task.sources")
    lacking = sorted({s.modality for s in named_sources(task.sources)} - {*step.modalities})
    if lacking:
        yield f"task.sources looks at {', '.join(lacking)}, not among its modalities {step.modalities}; add it there."
    if run.backbone.kind != ENCODER:
        yield (
            f"a masked task needs a backbone with tokenizers of every dimension, {run.backbone.kind} has none; use "
            "backbone=dimension_free_tiny or backbone=dimension_free."
        )
    if not 0 <= task.hidden < 1:
        yield f"task.hidden is {task.hidden:g}; it is a share below 1, or 0 for the paper's."
    if task.width < 4 or task.width % 4 or task.layers < 1:
        yield f"task.width is {task.width} and task.layers {task.layers}; use a multiple of 4, and 1 or more."
    others = sorted(name for name, part in step.adapter.parts.items() if part.kind not in PARTS)
    if others:
        yield f"a masked task trains {' or '.join(PARTS)} parts and its own decoders; take out {', '.join(others)}."
    if step.federation.kind == "newton":
        yield "a masked task is not fitted from sums; use federation=mean."


def rehearsal_problems(step: Step, run: Run) -> Iterator[str]:
    """Method medcoss rehearses stages that an earlier step of the run learned, by shares that mean something."""
    for spec in (spec for spec in step.methods if spec.kind == "medcoss"):
        if spec.stages and not _is_masked(step):
            yield "method medcoss keeps self-supervised stages, and this step's task is no masked one; take it out."
            continue
        yield from source_problems(spec.stages, where="method medcoss's stages")
        if spec.select not in ("kmeans", "random"):
            yield f"method medcoss has select '{spec.select}'; it can be kmeans or random."
        if not 0 <= spec.share < 1 or not 0 < spec.clusters <= 1 or not 0 < spec.kept <= 1:
            yield (
                f"method medcoss has share {spec.share:g}, clusters {spec.clusters:g} and kept {spec.kept:g}; share is "
                "of the steps, 0 or more and below 1, the others are of a stage's cases, above 0 and at most 1."
            )


def stage_order_problems(step: Step, run: Run) -> Iterator[str]:
    """Each rehearsed stage was learned before, and none of them is the one that is learned now."""
    for spec in (spec for spec in step.methods if spec.kind == "medcoss" and _is_masked(step)):
        yield from _out_of_order(step, run, spec.stages)


def _out_of_order(step: Step, run: Run, stages: Sequence[str]) -> Iterator[str]:
    names = list(run.steps)
    before = [run.steps[name] for name in names[: names.index(step.name)]] if step.name in names else []
    learned = {s for other in before if _is_masked(other) for s in named_sources(other.task.sources)}
    for source in named_sources(stages):
        if source in named_sources(step.task.sources):
            yield f"method medcoss rehearses {source.name}, which this step learns: a stage order does not repeat."
        elif source not in learned and not run.continues:
            known = ", ".join(sorted(s.name for s in learned)) or "none"
            yield f"method medcoss rehearses {source.name}, which no earlier step learns; learned before: {known}."


def _is_masked(step: Step) -> bool:
    return step.task is not None and step.task.kind == "masked"
