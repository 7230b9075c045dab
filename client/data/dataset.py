"""CaseSet: the prepared cases of one split and one step, in memory, as batches of `common.batch.Batch`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import groupby

import torch
from torch import Tensor

from client.data.cache import VolumeCache
from client.data.checks import load_usable
from client.data.hecktor import Case
from client.data.reports import report_text
from client.data.transforms import random_window
from client.data.volumes import Prepared, prepare
from common.backbones.base import Features, Tokenizer
from common.adapters.fitting import reached
from common.batch import CT, EHR, IMAGES, PET, Batch, parse_mode
from common.config.schema import Step
from common.errors import ConfigError, UnknownName
from common.findings import FINDINGS
from common.modes import drawable


def usable(case: Case, step: Step) -> bool:
    """Whether the case has the step's target and, among the step's modalities, an image (with a CT beside it, which
    carries the grid) or a report."""
    has_target: Callable[[Case], bool] = _target_kind(step)[0]
    return has_target(case) and bool(shows(case, step.modalities))


def trainable(case: Case, step: Step) -> bool:
    """Whether some mode of the step's draw shows something of the case that reaches a part which the step trains."""
    seen = shows(case, step.modalities)
    images, rest = seen & {*IMAGES}, seen - {*IMAGES}
    modes = [images & {*parse_mode(mode)} | rest for mode in drawable(step)] or [seen]
    found = set().union(*(reached(step.adapter.parts, mode) for mode in modes if mode))
    return any(fnmatchcase(part, pattern) for part in found for pattern in step.train_parts)


def shows(case: Case, modalities: Sequence[str]) -> set[str]:
    """Which of the modalities the case has; images only where there is a CT, which carries the grid."""
    images = {m for m in IMAGES if m in case.images} if CT in case.images else set()
    report = {EHR} if bool(report_text(case.record)) else set()
    return (images | report) & {*modalities}


class CaseSet:
    """The usable ones among ``cases``, decoded once and held in memory.

    Args:
        cases: of one part of the split; those that are not `usable` for the step are left out.
        tokenizer: needed where the step's modalities include EHR.
        cache: where prepared volumes are kept between rounds and processes; None decodes each time.
        skip_unreadable: leave unreadable cases out (named in the center's own log, counted in ``skipped``) instead of
            raising `DataError`.

    Attributes:
        cases: the cases it holds, in the order of `all`.
        skipped: number of cases that were left out as unreadable.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        step: Step,
        *,
        tokenizer: Tokenizer | None = None,
        cache: VolumeCache | None = None,
        skip_unreadable: bool = True,
    ):
        if EHR in step.modalities and tokenizer is None:
            raise ConfigError(
                f"Step '{step.name}' reads reports but the backbone has no tokenizer; take EHR out of it."
            )
        size = step.view.size
        if size is not None and any(n < w for n, w in zip(size, step.view.window, strict=True)):
            raise ConfigError(
                f"Step '{step.name}' crops to {size} voxels, less than its window {step.view.window}; set view.window."
            )
        self._step = step
        wanted = [case for case in cases if usable(case, step)]
        ready, self.skipped = load_usable(
            wanted, prepare_one=lambda case: _prepared(case, step, cache), skip_unreadable=skip_unreadable
        )
        self.cases = [case for case, _ in ready]
        texts = [report_text(case.record) for case in self.cases] if EHR in step.modalities else []
        tokens = tokenizer(texts) if tokenizer is not None and texts else None
        self._samples = [
            _sample(case, prepared, step, tokens[i] if tokens is not None and texts[i] else None)
            for i, (case, prepared) in enumerate(ready)
        ]
        self._text_length = 0 if tokens is None else tokens.shape[1]
        self._kept: tuple[str, dict[int, Features]] = ("", {})

    def __len__(self) -> int:
        return len(self._samples)

    def kept_features(self, key: str) -> dict[int, Features]:
        """Frozen features by position, filled by whoever computes them; another key starts anew.

        Args:
            key: what decides them beside the cases: the base and what stands inside the encoder.
        """
        if self._kept[0] != key:
            self._kept = (key, {})
        return self._kept[1]

    def having(self, mode: str) -> list[int]:
        """Positions of the cases that have every modality of a mode ("CT+PET"); of all cases for the empty mode."""
        wanted = set(parse_mode(mode)) if mode else set()
        return [i for i, sample in enumerate(self._samples) if wanted <= sample.modalities]

    def in_order(self, batch: int, *, only: Sequence[int] | None = None) -> Iterator[list[int]]:
        """Positions of every case (or of ``only`` these) once, in order. Cases of different sizes share no batch."""
        positions = range(len(self)) if only is None else only
        for _, same in groupby(positions, key=lambda i: self._samples[i].shape):
            group = list(same)
            for first in range(0, len(group), batch):
                yield group[first : first + batch]

    def shuffled(self, batch: int, *, generator: torch.Generator) -> Iterator[list[int]]:
        """Positions of every case once, shuffled."""
        order = torch.randperm(len(self), generator=generator).tolist()
        for first in range(0, len(order), batch):
            yield order[first : first + batch]

    def collate(self, positions: Sequence[int], *, generator: torch.Generator | None = None) -> Batch:
        """The cases at these positions as one batch.

        Args:
            generator: given for training: of a case larger than the view's window, one random window is taken.
        """
        samples = [self._samples[i] for i in positions]
        if generator is not None:
            samples = [_windowed(sample, self._step.view.window, generator) for sample in samples]
        return self._collate(samples)

    def all(self, batch: int) -> Iterator[Batch]:
        """Every case once, in order and unchanged."""
        return (self.collate(positions) for positions in self.in_order(batch))

    def batches(self, batch: int, *, generator: torch.Generator) -> Iterator[Batch]:
        """Every case once, shuffled; of a case larger than the view's window, one random window (training only)."""
        return (self.collate(p, generator=generator) for p in self.shuffled(batch, generator=generator))

    def _collate(self, samples: Sequence[_Sample]) -> Batch:
        inputs: dict[str, Tensor] = {}
        present: dict[str, Tensor] = {}
        shape = next((s.shape for s in samples if s.shape), tuple(self._step.view.window))
        for modality in (m for m in (CT, PET) if m in self._step.modalities):
            empty = torch.zeros(1, *shape)
            inputs[modality] = torch.stack([sample.images.get(modality, empty) for sample in samples])
            present[modality] = torch.tensor([modality in sample.images for sample in samples])
        if EHR in self._step.modalities:
            blank = torch.zeros(self._text_length, dtype=torch.int64)
            inputs[EHR] = torch.stack([blank if s.tokens is None else s.tokens for s in samples])
            present[EHR] = torch.tensor([sample.tokens is not None for sample in samples])
        target = {name: torch.stack([s.target[name] for s in samples]) for name in samples[0].target}
        return Batch(inputs, present, target)


@dataclass
class _Sample:
    images: dict[str, Tensor]  # (1, D, H, W)
    tokens: Tensor | None  # (L,); None where the report is empty
    target: dict[str, Tensor]

    @property
    def modalities(self) -> set[str]:
        """What the case has, of what the step looks at."""
        return {*self.images, *([EHR] if self.tokens is not None else [])}

    @property
    def shape(self) -> tuple[int, ...]:
        """(D, H, W), or () for a case without images."""
        return tuple(next(iter(self.images.values())).shape[1:]) if self.images else ()


def _prepared(case: Case, step: Step, cache: VolumeCache | None) -> Prepared | None:
    if not {*IMAGES} & shows(case, step.modalities):
        return None
    with_label = step.task.kind == "segmentation"
    return prepare(case, view=step.view, modalities=step.modalities, cache=cache, with_label=with_label)


def _sample(case: Case, prepared: Prepared | None, step: Step, tokens: Tensor | None) -> _Sample:
    target = _target_kind(step)[1](case, prepared, step)
    return _Sample({} if prepared is None else prepared.images, tokens, target)


def _windowed(sample: _Sample, window: Sequence[int], generator: torch.Generator) -> _Sample:
    if sample.shape in ((), tuple(window)):
        return sample
    images, mask = random_window(sample.images, sample.target.get("mask"), window=window, generator=generator)
    target = sample.target if mask is None else {**sample.target, "mask": mask}
    return _Sample(images, sample.tokens, target)


# --------------------------------------------------------------------------------------------------------- targets


def _segmentation(case: Case, prepared: Prepared | None, step: Step) -> dict[str, Tensor]:
    assert prepared is not None and prepared.mask is not None  # `usable` asked for the label, `prepare` read it
    return {
        "mask": prepared.mask,
        "outside_mm3": torch.tensor(prepared.outside_mm3, dtype=torch.float32),
        "voxel_mm3": torch.tensor(prepared.voxel_mm3, dtype=torch.float32),
    }


def _prognosis(case: Case, prepared: Prepared | None, step: Step) -> dict[str, Tensor]:
    assert case.days is not None and case.event is not None  # asked for by `usable`
    return {"days": torch.tensor(case.days), "event": torch.tensor(float(case.event))}


def _classification(case: Case, prepared: Prepared | None, step: Step) -> dict[str, Tensor]:
    assert case.findings is not None  # asked for by `usable`
    known = dict(zip(FINDINGS, case.findings, strict=True))
    for name in step.task.classes:
        if name not in known:
            raise UnknownName("finding", name, FINDINGS, where=f"step '{step.name}', task.classes")
    return {"labels": torch.tensor([float(known[name]) for name in step.task.classes or FINDINGS])}


Target = Callable[[Case, Prepared | None, Step], dict[str, Tensor]]
TARGETS: dict[str, tuple[Callable[[Case], bool], Target]] = {
    "classification": (lambda case: case.findings is not None, _classification),
    "prognosis": (lambda case: case.days is not None and case.event is not None, _prognosis),
    "segmentation": (lambda case: case.label is not None and CT in case.images, _segmentation),
}


def _target_kind(step: Step) -> tuple[Callable[[Case], bool], Target]:
    if step.task.kind not in TARGETS:
        raise UnknownName("task", step.task.kind, TARGETS, where=f"step '{step.name}'")
    return TARGETS[step.task.kind]
