"""Building a step's parts: what is injected into the backbone's twin, what stands outside it, and how wide each is.

Each part starts from its own (seed, part name), so that the server and every center start alike and one part more does
not change another's start.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from common.adapters import INJECTED, Surroundings, build_part
from common.adapters.compatibility import HEAD, IMAGE, SOURCES, feeds
from common.backbones.base import Backbone
from common.config.adapter import role_of
from common.config.step import Step
from common.data.batch import RECORD, volumes_of
from common.exact.columns import Layout
from common.exact.step import layout_of, voxels_of
from common.exact.voxels import voxel_columns
from common.model.grounding import GROUNDING, build_grounding
from common.model.masking import MASKED
from common.seeding import seed_for, seed_torch
from common.tasks import Task


def of_kind(step: Step, kind: str) -> list[tuple[str, Any]]:
    """Name and spec of the step's parts of a kind, by name."""
    return [(name, step.adapter.parts[name]) for name in sorted(step.adapter.parts) if _kind(step, name) == kind]


def inject(twin: Backbone, backbone: Backbone, step: Step, *, seed: int) -> dict[str, Any]:
    """Put the parts that work inside the encoder into the twin; by name, what holds their tensors."""
    injected: dict[str, Any] = {}
    for name in sorted(step.adapter.parts):
        with _seeded(seed, name):
            if _kind(step, name) == "lora":
                from common.adapters.lora import inject as inject_lora  # peft takes seconds to import

                injected[name] = inject_lora(twin, backbone, name=name, spec=step.adapter.parts[name])
            elif _kind(step, name) == "full":
                from common.adapters.full import own_tensors

                injected[name] = own_tensors(twin, step.adapter.parts[name])
    return injected


def build_parts(backbone: Backbone, step: Step, task: Task, *, seed: int) -> nn.ModuleDict:
    """The step's modules outside the encoder, and its task's head where no part is one."""
    parts = nn.ModuleDict()
    layout = linear_layout(backbone, step) if of_kind(step, "linear") else None
    voxels = voxel_columns(step, backbone.levels, spec) if (spec := voxels_of(step)) else None
    depth, height, width = step.view.window
    widths = widths_of(backbone, step)
    around = Surroundings(
        backbone, task.outputs, tuple(widths), _patch(backbone, step), (depth, height, width), layout, voxels,
        len(volumes_of(step.modalities)),
    )  # fmt: skip
    for name in sorted(step.adapter.parts):
        if _kind(step, name) not in INJECTED:
            with _seeded(seed, name):
                parts[name] = build_part(step.adapter.parts[name], around)
    if layout is not None or voxels is not None:
        return parts
    with _seeded(seed, HEAD):
        head = _head(backbone, step, task, sum(widths))
    if head is not None:
        parts[HEAD] = head
    return parts


def _head(backbone: Backbone, step: Step, task: Task, width: int) -> nn.Module | None:
    """The task's last layer, what compares cells with prompts, or the decoders of what is masked; None where a part
    ends in the output."""
    if step.task.kind == MASKED:
        from common.adapters.masked_decoder import build_decoders

        return build_decoders(backbone, step)
    if step.task.kind == GROUNDING:
        return build_grounding(backbone, step)
    fusions = of_kind(step, "fusion")
    return task.head(fusions[0][1].width if fusions else width)


def sources_of(step: Step) -> list[tuple[str, str | None]]:
    """(source, mlp part or None) for each embedding that the head sees, in a fixed order."""
    sources: list[tuple[str, str | None]] = []
    for source in SOURCES:
        if any(feeds(modality, source) for modality in step.modalities):
            mlps = [name for name, spec in of_kind(step, "mlp") if spec.input == source]
            sources += [(source, mlp) for mlp in mlps] or [(source, None)]
    return sources


def widths_of(backbone: Backbone, step: Step) -> list[int]:
    """Widths of the embeddings that a fusion or the head sees, in order."""
    parts = step.adapter.parts
    return [parts[mlp].width if mlp else width_of(backbone, source) for source, mlp in sources_of(step)]


def width_of(backbone: Backbone, source: str) -> int:
    """Width of what the backbone says of a source (image, text)."""
    return backbone.image_dim if source == IMAGE else backbone.text_dim


def exact_layout(backbone: Backbone, step: Step) -> Layout:
    """The columns of the step's part that is fitted from sums."""
    spec = voxels_of(step)
    return linear_layout(backbone, step) if spec is None else voxel_columns(step, backbone.levels, spec).layout


def linear_layout(backbone: Backbone, step: Step) -> Layout:
    """The columns of the step's linear part."""
    widths = {source: width_of(backbone, source) for source, _ in sources_of(step)}
    return layout_of(step, widths, with_records=RECORD in step.modalities)


def _kind(step: Step, name: str) -> str:
    return role_of(step.adapter.parts[name])


def _patch(backbone: Backbone, step: Step) -> tuple[int, int, int]:
    """Voxels of a token: the backbone's, or what a resolution part makes of it."""
    for _, spec in of_kind(step, "resolution"):
        from common.adapters.resolution import adapted_patch

        return adapted_patch(backbone, spec.patch)
    return backbone.patch


@contextmanager
def _seeded(seed: int, part: str) -> Iterator[None]:
    """A block in which torch's global generator belongs to one part, and after which it is as before."""
    with torch.random.fork_rng(devices=[]):
        seed_torch(seed_for(seed, "part", part))
        yield
