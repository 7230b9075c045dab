"""CaseSet: the prepared cases of one split and one step, in memory, as batches of `common.data.batch.Batch`."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from client.data.case import Case, check_within
from client.data.hecktor.reports import report_text
from client.data.images.cache import VolumeCache
from client.data.images.checks import load_usable
from client.data.images.own_grid import OwnGrid
from client.data.images.transforms import random_window
from client.data.images.volumes import Prepared, prepare
from common.adapters.compatibility import reached
from common.backbones.base import Features, Tokenizer
from common.config.limits.patterns import matches_any
from common.config.step import Step
from common.data.batch import EHR, RECORD, Batch, parse_mode, volumes_of
from common.data.findings import FINDINGS, FINDINGS_TARGET
from common.data.modality_sets import drawable
from common.data.records import encode_records
from common.errors import ConfigError, UnknownName
from common.exact.step import records_of
from common.model.state import bytes_of
from common.plugins import Registry
from common.tasks import withheld_fields

OUTLINED = ("grounding", "segmentation")  # kinds of tasks whose target is made of a mask


def usable(case: Case, step: Step) -> bool:
    """Whether the case has the step's target and, among the step's modalities, an image (beside the reference image,
    which carries the grid), a report or a record (be it empty).
    """
    has_target: Callable[[Case, Step], bool] = _target_kind(step)[0]
    return has_target(case, step) and bool(shows(case, step))


def trainable(case: Case, step: Step) -> bool:
    """Whether some mode of the step's draw shows something of the case that reaches a part which the step trains."""
    seen = shows(case, step)
    images = {*volumes_of(seen)}
    rest = seen - images
    modes = [images & {*parse_mode(mode)} | rest for mode in drawable(step)] or [seen]
    found = set().union(*(reached(step.adapter.parts, mode) for mode in modes if mode))
    return any(matches_any(part, step.train_parts) for part in found)


def shows(case: Case, step: Step) -> set[str]:
    """What of the step's modalities the case has; images only where there is the one that carries the grid."""
    images = {*case.images} if case.has_grid else set()
    report = {EHR} if EHR in step.modalities and _text(case, step) else set()
    return (images | report | {RECORD}) & {*step.modalities}


def targets_of(cases: Sequence[Case], step: Step) -> dict[str, Tensor]:
    """Targets of cases of a task that needs no image for them, stacked; empty for no cases."""
    each = [_target_kind(step)[1](case, None, step) for case in cases]
    return {name: torch.stack([target[name] for target in each]) for name in each[0]} if each else {}


def _text(case: Case, step: Step) -> str:
    """The report as this task may read it: without its target and the target's proxies.

    A report that came as text stands where there is no record; nothing can be withheld from it, so a classification
    does not read it.
    """
    written = report_text(case.record, withhold=withheld_fields(step.task))
    return written or (case.report or "" if step.task.kind != "classification" else "")


def unlabeled(case: Case, prepared: Prepared | None, step: Step, *, tokenizer: Tokenizer | None) -> Batch:
    """One case as a step's model sees it, without a target, to predict it.

    Args:
        prepared: its images on the step's view; None where it has none that the step looks at.
    """
    inputs = {} if prepared is None else {name: image[None] for name, image in prepared.images.items()}
    text = _text(case, step) if EHR in step.modalities else ""
    if text and tokenizer is not None:
        inputs[EHR] = tokenizer([text])
    if RECORD in step.modalities:
        inputs[RECORD] = _records([case], step)
    return Batch(inputs, {name: torch.ones(1, dtype=torch.bool) for name in inputs}, {})


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
        _check_strata({case.center for case in self.cases})
        texts = [_text(case, step) for case in self.cases] if EHR in step.modalities else []
        tokens = tokenizer(texts) if tokenizer is not None and texts else None
        self._samples = [
            _sample(case, prepared, step, tokens[i] if tokens is not None and texts[i] else None)
            for i, (case, prepared) in enumerate(ready)
        ]
        records = _records(self.cases, step) if RECORD in step.modalities else None
        for i, sample in enumerate(self._samples):
            sample.record = None if records is None else records[i]
        self._text_length = 0 if tokens is None else tokens.shape[1]
        self._kept: tuple[str, dict[int, Features]] = ("", {})

    def __len__(self) -> int:
        return len(self._samples)

    @property
    def nbytes(self) -> int:
        """Bytes of what is held in memory, kept features included."""
        tensors = [t for s in self._samples for t in (*s.images.values(), *s.target.values(), s.tokens, s.record)]
        tensors += [t for kept in self._kept[1].values() for t in (*kept.pyramid, *kept.pooled.values())]
        return bytes_of(tensor for tensor in tensors if tensor is not None)

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

    def own_grid(self, position: int) -> OwnGrid | None:
        """Where the case was drawn, to score it there; None of a case without a mask."""
        return self._samples[position].own_grid

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
            samples = [_windowed(sample, self._step, generator) for sample in samples]
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
        for modality in volumes_of(self._step.modalities):
            empty = torch.zeros(1, *shape)
            inputs[modality] = torch.stack([sample.images.get(modality, empty) for sample in samples])
            present[modality] = torch.tensor([modality in sample.images for sample in samples])
        if EHR in self._step.modalities:
            blank = torch.zeros(self._text_length, dtype=torch.int64)
            inputs[EHR] = torch.stack([blank if s.tokens is None else s.tokens for s in samples])
            present[EHR] = torch.tensor([sample.tokens is not None for sample in samples])
        if RECORD in self._step.modalities:
            inputs[RECORD] = torch.stack([s.record for s in samples if s.record is not None])
            present[RECORD] = torch.ones(len(samples), dtype=torch.bool)
        target = {name: torch.stack([s.target[name] for s in samples]) for name in samples[0].target}
        return Batch(inputs, present, target)


@dataclass
class _Sample:
    images: dict[str, Tensor]  # (1, D, H, W)
    tokens: Tensor | None  # (L,); None where the report is empty
    target: dict[str, Tensor]
    record: Tensor | None = None  # (F + V,); None where the step reads no records
    own_grid: OwnGrid | None = None

    @property
    def modalities(self) -> set[str]:
        """What the case has, of what the step looks at."""
        return {*self.images, *([EHR] if self.tokens is not None else [])}

    @property
    def shape(self) -> tuple[int, ...]:
        """(D, H, W), or () for a case without images."""
        return tuple(next(iter(self.images.values())).shape[1:]) if self.images else ()


def _records(cases: Sequence[Case], step: Step) -> Tensor:
    """Values and known flags (n, F + V) of the variables that this step may see, float64."""
    values, flags = encode_records([case.record for case in cases], records_of(step))
    return torch.cat([torch.from_numpy(values), torch.from_numpy(flags)], dim=1)


def _prepared(case: Case, step: Step, cache: VolumeCache | None) -> Prepared | None:
    if not volumes_of(shows(case, step)):
        return None
    structures = _outlined_at(case, step) if step.task.kind in OUTLINED else None
    if structures is not None:
        check_within(case, structures, getattr(step.task, "within", {}))
    found = prepare(
        case,
        view=step.view,
        modalities=step.modalities,
        structures=structures,
        cache=cache,
        with_label=structures is not None,
    )
    if structures is None or structures == list(step.task.structures):
        return found
    return _in_places_of(found, structures, step.task.structures)


def _outlined_at(case: Case, step: Step) -> list[str]:
    """The structures of a step that the case's center outlines; its layout need not name the others."""
    own = step.task.outlined.get(case.center, step.task.structures)
    return [name for name in step.task.structures if name in own]


def _in_places_of(found: Prepared, own: Sequence[str], structures: Sequence[str]) -> Prepared:
    """The same masks and volumes with each structure at its place among all of the step's."""
    places = np.arange(256, dtype=np.uint8)
    for place, name in enumerate(own, start=1):
        places[place] = structures.index(name) + 1
    volumes = dict(zip(own, found.outside_mm3, strict=True))
    grid = found.own_grid
    if grid is not None:
        grid = replace(grid, truth=replace(grid.truth, labels=places[grid.truth.labels]))
    return replace(
        found,
        mask=None if found.mask is None else torch.from_numpy(places[found.mask.numpy()]),
        outside_mm3=tuple(volumes.get(name, 0.0) for name in structures),
        own_grid=grid,
    )


def _sample(case: Case, prepared: Prepared | None, step: Step, tokens: Tensor | None) -> _Sample:
    target = _target_kind(step)[1](case, prepared, step)
    if prepared is None:
        return _Sample({}, tokens, target)
    return _Sample(prepared.images, tokens, target, own_grid=prepared.own_grid)


def _windowed(sample: _Sample, step: Step, generator: torch.Generator) -> _Sample:
    window = step.view.window
    if sample.shape in ((), tuple(window)):
        return sample
    share, mask = step.training.foreground, sample.target.get("mask")
    images, mask = random_window(sample.images, mask, window=window, generator=generator, foreground=share)
    target = sample.target if mask is None else {**sample.target, "mask": mask}
    return _Sample(images, sample.tokens, target)


# --------------------------------------------------------------------------------------------------------- targets


def _segmentation(case: Case, prepared: Prepared | None, step: Step) -> dict[str, Tensor]:
    assert prepared is not None and prepared.mask is not None  # `usable` asked for the label, `prepare` read it
    return {
        "mask": prepared.mask,
        "outside_mm3": torch.tensor(prepared.outside_mm3, dtype=torch.float32),
        "voxel_mm3": torch.tensor(prepared.voxel_mm3, dtype=torch.float32),
        **({"known": known_structures(case, step)} if step.task.outlined else {}),
    }


def known_structures(case: Case, step: Step) -> Tensor:
    """(S,): 1 for each structure that the case's center outlines, as the step says."""
    own = _outlined_at(case, step)
    return torch.tensor([float(name in own) for name in step.task.structures])


def _grounding(case: Case, prepared: Prepared | None, step: Step) -> dict[str, Tensor]:
    from client.data.boxes import box_targets

    assert prepared is not None and prepared.mask is not None  # as for a segmentation
    found = box_targets(prepared.mask, structures=len(step.task.structures), slices=step.task.slices)
    return found | {"known": known_structures(case, step)}


def _stratum(center: str) -> int:
    return zlib.crc32(center.encode())


def _check_strata(centers: set[str]) -> None:
    """Raise ConfigError where two centers' codes have one checksum: their patients would share risk sets."""
    by_stratum = {_stratum(center): center for center in sorted(centers)}
    lost = sorted(centers - {*by_stratum.values()})
    if lost:
        raise ConfigError(
            f"The centers '{lost[0]}' and '{by_stratum[_stratum(lost[0])]}' have codes with one checksum and cannot be "
            "told apart; rename one of them."
        )


def _prognosis(case: Case, prepared: Prepared | None, step: Step) -> dict[str, Tensor]:
    assert case.days is not None and case.event is not None  # asked for by `usable`
    stratum = _stratum(case.center)  # Cox's risk sets hold one center's cases
    return {
        "days": torch.tensor(case.days), "event": torch.tensor(float(case.event)), "stratum": torch.tensor(stratum),
    }  # fmt: skip


def _classification(case: Case, prepared: Prepared | None, step: Step) -> dict[str, Tensor]:
    if step.task.target != FINDINGS_TARGET:
        return {"labels": torch.tensor([float(_class_number(case, step))])}
    assert case.findings is not None  # asked for by `usable`
    known = dict(zip(FINDINGS, case.findings, strict=True))
    for name in step.task.classes:
        if name not in known:
            raise UnknownName("finding", name, FINDINGS, where=f"step '{step.name}', task.classes")
    return {"labels": torch.tensor([float(known[name]) for name in step.task.classes or FINDINGS])}


def _class_number(case: Case, step: Step) -> int:
    """The class of a recorded field: 0 or 1 of a flag, a stage's place among the task's classes; -1 where unknown."""
    value = case.record.get(step.task.target)
    if isinstance(value, float) and step.task.form == "binary":
        return int(value)
    names = [str(name).lower() for name in step.task.classes]
    return names.index(str(value).lower()) if str(value).lower() in names else -1


def _has_classes(case: Case, step: Step) -> bool:
    if step.task.target == FINDINGS_TARGET:
        return case.findings is not None
    return _class_number(case, step) >= 0


Target = Callable[[Case, Prepared | None, Step], dict[str, Tensor]]
TARGETS: Registry[tuple[Callable[[Case, Step], bool], Target]] = Registry(
    "task",
    "target",
    {
        "classification": (_has_classes, _classification),
        "grounding": (lambda case, step: case.label is not None and case.has_grid, _grounding),
        "masked": (lambda case, step: True, lambda case, prepared, step: {}),  # it needs no label
        "prognosis": (lambda case, step: case.days is not None and case.event is not None, _prognosis),
        "segmentation": (lambda case, step: case.label is not None and case.has_grid, _segmentation),
        "statistics": (lambda case, step: True, lambda case, prepared, step: {}),  # of whatever each patient has
    },
)


def _target_kind(step: Step) -> tuple[Callable[[Case, Step], bool], Target]:
    if step.task.kind not in TARGETS:
        raise UnknownName("task", step.task.kind, TARGETS, where=f"step '{step.name}'")
    return TARGETS[step.task.kind]
