"""What is wrong with steps of self-supervised learning, as finished sentences."""

from __future__ import annotations

from collections.abc import Iterator

from common.config.run import Run
from common.config.step import Step
from common.data.sources import named_sources, source_problems

ENCODER = "dimension_free"
PARTS = ("full", "lora")  # what may train beside the decoders


def masked_problems(step: Step, run: Run) -> Iterator[str]:
    """A masked step's sources, its parts and its backbone fit together."""
    if step.task is None or step.task.kind != "masked":
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
