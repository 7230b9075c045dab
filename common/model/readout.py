"""Readouts: from what the frozen model says of a batch to the task's output, one for each way in which a step can end.

A readout holds the terminal parts' modules and owns none; `readout_of` chooses it once, when the model is built.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from common.adapters.compatibility import HEAD, IMAGE, feeds
from common.adapters.unet import side_by_side
from common.backbones.base import Backbone, Features
from common.config.privacy import NoisedSums
from common.config.step import Step
from common.data.batch import CT, RECORD, is_volume, volumes_of
from common.data.sources import named_sources
from common.errors import AdapterError
from common.exact.columns import Layout
from common.exact.ranges import of_length_one, ranges_of, shortened, within_range
from common.exact.step import records_of
from common.model.building import of_kind, sources_of, width_of
from common.model.grounding import GROUNDING, grounding_readout
from common.model.masking import MASKED, MaskedReadout
from common.tasks import Task

Tensors = Mapping[str, Tensor]


class Readout(Protocol):
    """The end of a step's model.

    Attributes:
        reads_features: whether the encoder has to say anything.
    """

    reads_features: bool

    def read(self, features: Features, inputs: Tensors, present: Tensors) -> Tensor:
        """The task's output (B, ...) from features and, where the readout looks at them, the inputs themselves."""


@dataclass(frozen=True)
class VoxelReadout:
    """A decoder, and the full-resolution skips of CT and of new modalities that it joins."""

    step: str
    decoder: Any
    skips: Mapping[str, nn.Module]  # by modality
    uptakes: Mapping[str, nn.Module]  # by modality
    reads_features = True

    def read(self, features: Features, inputs: Tensors, present: Tensors) -> Tensor:
        """Logits (B, 1 + S, D, H, W). Raises AdapterError for a batch without volumes."""
        if not features.pyramid:
            raise AdapterError(f"Step '{self.step}' segments volumes, but a batch holds {', '.join(inputs)} only.")
        skip = _where(present[CT], self.decoder.skip_from(inputs[CT]))
        for modality, part in self.skips.items():
            if modality in inputs:
                skip = skip + _where(present[modality], part(inputs[modality]))
        logits = self.decoder(features.pyramid, skip)
        for modality, part in self.uptakes.items():
            if modality in inputs:
                logits = logits + _where(present[modality], part(inputs[modality]))
        return logits

    @property
    def deeper(self) -> list[Tensor]:
        """What coarser levels answered to the last training batch."""
        return list(getattr(self.decoder, "deeper", []))


@dataclass(frozen=True)
class Embedded:
    """The embeddings of a step's sources, in a fixed order: each the frozen model's own, or through an mlp part."""

    sources: Sequence[tuple[str, nn.Module | None, int]]  # image or text, its mlp, the frozen model's width

    def of(self, features: Features, inputs: Tensors, present: Tensors) -> tuple[list[Tensor], list[Tensor]]:
        """Embeddings (B, width) each, zero where a case lacks the source; and who has it, bool (B,) each."""
        some = next(iter(inputs.values()))
        embeddings, has = [], []
        for source, mlp, width in self.sources:
            there = _any_present(present, source, like=some)
            pooled = features.pooled.get(source)
            if pooled is None:
                pooled = torch.zeros(len(some), width, device=some.device)
            embeddings.append(_where(there, mlp(pooled) if mlp is not None else pooled))
            has.append(there)
        return embeddings, has


@dataclass(frozen=True)
class HeadReadout:
    """The task's head on the embeddings, one after the other."""

    head: nn.Module
    embedded: Embedded
    reads_features = True

    def read(self, features: Features, inputs: Tensors, present: Tensors) -> Tensor:
        """The head's output (B, K)."""
        embeddings, _ = self.embedded.of(features, inputs, present)
        return self.head(torch.cat(embeddings, dim=1))


@dataclass(frozen=True)
class FusionReadout:
    """The task's head on the fused embeddings; a fusion may attend to the image's tokens."""

    head: nn.Module
    fusion: nn.Module
    embedded: Embedded
    reads_features = True

    def read(self, features: Features, inputs: Tensors, present: Tensors) -> Tensor:
        """The head's output (B, K)."""
        embeddings, there = self.embedded.of(features, inputs, present)
        tokens = features.pyramid[-1].flatten(2).transpose(1, 2) if features.pyramid else None
        imaged = _any_present(present, IMAGE, like=embeddings[0])
        return self.head(self.fusion(embeddings, there, tokens, imaged))


@dataclass(frozen=True)
class LinearReadout:
    """A linear part on standardised columns of frozen features and the record, float64."""

    linear: nn.Module
    embedded: Embedded
    recorded: Sequence[str]  # values of a record that this step may see
    flag_of: Sequence[int] = ()  # ... and each one's flag, of the record's
    longest: float | None = None  # of a row of columns in public ranges (`common.exact.ranges`); None: as they are
    with_flags: bool = True  # whether flags are columns, too
    reads_features = True

    def read(self, features: Features, inputs: Tensors, present: Tensors) -> Tensor:
        """The linear part's output (B, K)."""
        return self.linear(*self.columns(features, inputs, present))

    def columns(self, features: Features, inputs: Tensors, present: Tensors) -> tuple[Tensor, Tensor]:
        """Values (B, F) and known flags (B, V), float64, in the order of the linear part's layout."""
        embeddings, has = self.embedded.of(features, inputs, present)
        if self.longest is not None:
            embeddings = [_where(there, of_length_one(e)) for e, there in zip(embeddings, has, strict=True)]
        values, flags = [e.double() for e in embeddings], [there[:, None].double() for there in has]
        if RECORD in inputs:
            record, known = inputs[RECORD].split([len(self.recorded), inputs[RECORD].shape[1] - len(self.recorded)], 1)
            values, flags = [*values, self._ranged(record, known)], [*flags, known]
        found = torch.cat(values, dim=1), torch.cat(flags, dim=1)
        return found if self.longest is None else shortened(*found, longest=self.longest, with_flags=self.with_flags)

    def _ranged(self, record: Tensor, known: Tensor) -> Tensor:
        """A record's values, in their public ranges where rows are bounded."""
        if self.longest is None:
            return record
        ranges = ranges_of(self.recorded).to(record.device)
        return within_range(record, ranges, known[:, list(self.flag_of)])


@dataclass(frozen=True)
class VoxelLinearReadout:
    """A linear part on every voxel's columns."""

    linear: Any
    reads_features = True

    def read(self, features: Features, inputs: Tensors, present: Tensors) -> Tensor:
        """Logits (B, 1 + S, D, H, W), the background's 0."""
        modalities = self.linear.columns.modalities
        size = inputs[modalities[0]].shape[2:]
        return self.linear(self.maps(features, inputs, present), [present[m] for m in modalities], size)

    def maps(self, features: Features, inputs: Tensors, present: Tensors) -> list[Tensor]:
        """The columns as maps, zero in cases that lack a modality."""
        seen = {m: _where(present[m], inputs[m]) for m in self.linear.columns.modalities}
        return self.linear.columns.maps(features.pyramid, seen)


@dataclass(frozen=True)
class UnetReadout:
    """A network of its own on the images; nothing is encoded before."""

    unet: nn.Module
    modalities: Sequence[str]  # the images, in the order of the network's channels
    reads_features = False

    def read(self, features: Features, inputs: Tensors, present: Tensors) -> Tensor:
        """Logits (B, 1 + S, D, H, W)."""
        some = next(x for m, x in inputs.items() if is_volume(m))
        nothing, nobody = torch.zeros_like(some), torch.zeros(len(some), dtype=torch.bool, device=some.device)
        images = [inputs.get(m, nothing) for m in self.modalities]
        return self.unet(side_by_side(images, [present.get(m, nobody) for m in self.modalities]))


@dataclass(frozen=True)
class ZeroShotReadout:
    """The backbone compares image and prompts by itself; nothing is encoded before."""

    backbone: Any
    classes: Sequence[str]
    reads_features = False

    def read(self, features: Features, inputs: Tensors, present: Tensors) -> Tensor:
        """Scores (B, C)."""
        return self.backbone.zero_shot(inputs, self.classes)


def readout_of(step: Step, task: Task, backbone: Backbone, parts: Mapping[str, nn.Module]) -> Readout:
    """The end of the step's model."""
    if step.task.kind == MASKED:
        return MaskedReadout(parts[HEAD], named_sources(step.task.sources))
    if step.task.kind == GROUNDING:
        return grounding_readout(step, backbone, parts[HEAD])
    if task.zero_shot:
        return ZeroShotReadout(backbone, task.classes)  # type: ignore[attr-defined]
    for name, _ in of_kind(step, "decoder"):
        skips, uptakes = ({s.modality: parts[n] for n, s in of_kind(step, kind)} for kind in ("skip", "uptake"))
        return VoxelReadout(step.name, parts[name], skips, uptakes)
    for name, _ in of_kind(step, "unet"):
        return UnetReadout(parts[name], volumes_of(step.modalities))
    for name, _ in of_kind(step, "voxel_linear"):
        return VoxelLinearReadout(parts[name])
    mlps = [(source, parts[mlp] if mlp else None) for source, mlp in sources_of(step)]
    embedded = Embedded([(source, mlp, width_of(backbone, source)) for source, mlp in mlps])
    for name, spec in of_kind(step, "linear"):
        layout = records_of(step) if RECORD in step.modalities else Layout(())
        longest = step.privacy.clip if isinstance(step.privacy, NoisedSums) else None
        return LinearReadout(parts[name], embedded, layout.values, layout.flag_of, longest, spec.known_flags)
    for name, _ in of_kind(step, "fusion"):
        return FusionReadout(parts[HEAD], parts[name], embedded)
    return HeadReadout(parts[HEAD], embedded)


def _any_present(present: Tensors, source: str, *, like: Tensor) -> Tensor:
    """bool (B,): cases that have at least one of the modalities of a source."""
    there = torch.zeros(len(like), dtype=torch.bool, device=like.device)
    for modality in (m for m in present if feeds(m, source)):
        there = there | present[modality]
    return there


def _where(present: Tensor, values: Tensor) -> Tensor:
    """Values (B, ...) of the cases where something is present, zero elsewhere."""
    return torch.where(present.view(-1, *[1] * (values.dim() - 1)), values, torch.zeros_like(values))
