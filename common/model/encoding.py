"""Encoding: how a step's inputs enter the frozen encoder: through which stems, at which positions, joined how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from common.adapters.compatibility import HEAD
from common.backbones.base import SEQUENCE, Backbone, Features, Join
from common.config.step import Step
from common.data.batch import CT, RECORD, volumes_of
from common.data.sources import named_sources
from common.model.building import of_kind
from common.model.masking import MASKED, Masking


@dataclass(frozen=True)
class Encoding:
    """Holds modules, owns none.

    Args:
        stems: patch embeddings by modality, in the place of the backbone's or in addition to it.
        resolution: a resolution part, which has a stem for CT and positions of its own.
        join: how the tokens of several modalities meet in the backbone.
    """

    stems: Mapping[str, nn.Module]
    resolution: nn.Module | None
    join: Join | str | None

    def encode(self, backbone: Backbone, inputs: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> Features:
        """The backbone's features of what a step may look at."""
        inputs, present = ({m: x for m, x in given.items() if m != RECORD} for given in (inputs, present))
        if not inputs:
            return Features([], {})  # a record alone has nothing to encode
        stems, position = dict(self.stems), None
        if self.resolution is not None:
            stems[CT], position = self.resolution, self.resolution.position
        return backbone(inputs, present, stems, join=self.join, position=position)


@dataclass(frozen=True)
class Apart:
    """Each modality passes through the frozen model alone, as if it were a CT; their levels stand side by side."""

    modalities: tuple[str, ...]

    def encode(self, backbone: Backbone, inputs: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> Features:
        """Levels (B, M x C, d, h, w), zero where a case lacks a modality; no embedding of a whole image."""
        each = [backbone({CT: inputs[m]}, {CT: present[m]}).pyramid for m in self.modalities]
        return Features([torch.cat(level, dim=1) for level in zip(*each, strict=True)], {})


def encoding_of(step: Step, parts: Mapping[str, nn.Module]) -> Encoding | Apart | Masking:
    """How the step's parts change the way in."""
    if step.task is not None and step.task.kind == MASKED:
        return Masking(named_sources(step.task.sources), step.task.hidden, parts[HEAD])
    if of_kind(step, "voxel_linear"):
        return Apart(volumes_of(step.modalities))
    stems = {spec.modality: parts[name] for name, spec in of_kind(step, "patch_embed")}
    resolutions = [parts[name] for name, _ in of_kind(step, "resolution")]
    return Encoding(stems, resolutions[0] if resolutions else None, _join(step, parts))


def _join(step: Step, parts: Mapping[str, nn.Module]) -> Join | str | None:
    for name, _ in of_kind(step, "join"):
        from common.adapters.pet_pathway import Pathway

        return Pathway(parts[name], {spec.modality: parts[n] for n, spec in of_kind(step, "stand_in")})
    in_sequence = any(spec.place == "beside" for _, spec in of_kind(step, "patch_embed"))
    return SEQUENCE if in_sequence else None
