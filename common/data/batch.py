"""Batch: what a model sees and what a task compares it with. Modalities are named, never channel indices."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

CT, PET, EHR, RECORD = "CT", "PET", "EHR", "RECORD"
WRITTEN = (EHR, RECORD)  # any other modality is a volume, by whatever name: MR, T1C, FLAIR
MODALITY = re.compile(r"[A-Z][A-Z0-9_]{0,15}")  # without "+", which joins the names of a mode


@dataclass
class Batch:
    """Inputs, presence flags and targets of B cases.

    Args:
        inputs: ``CT``, ``PET`` and every other volume are float (B, 1, D, H, W), axes ordered inferior-superior,
            posterior-anterior, left-right; ``EHR`` is the tokenised report, int64 (B, L), 0 = padding; ``RECORD`` the
            recorded values and their known flags, float64 (B, F + V), as `common.data.records` lays them out. A
            modality that a case lacks is zero there; a modality that no case has may be absent from the dict.
        present: per modality, bool (B,). A modality missing from the dict is present nowhere.
        target: named tensors with leading dimension B; which names, the task says.
    """

    inputs: dict[str, Tensor]
    present: dict[str, Tensor]
    target: dict[str, Tensor]

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def without(self, modality: str, rows: Tensor) -> Batch:
        """The same batch with a modality hidden in the rows where ``rows`` (bool, (B,)) is true."""
        import torch  # names of modalities are asked for where nothing is computed

        if modality not in self.inputs:
            return self
        kept = self.present[modality] & ~rows.to(self.present[modality].device)
        values = self.inputs[modality]
        shown = torch.where(kept.view(-1, *[1] * (values.dim() - 1)), values, torch.zeros_like(values))
        return Batch({**self.inputs, modality: shown}, {**self.present, modality: kept}, self.target)

    def in_mode(self, mode: str) -> Batch:
        """The same batch as it looks when only the modalities of a mode ("CT", "CT+PET") had been acquired."""
        import torch

        everyone = torch.ones(len(self), dtype=torch.bool)
        batch = self
        for modality in (m for m in self.inputs if m not in parse_mode(mode)):
            batch = batch.without(modality, everyone)
        return batch

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        return Batch(*({k: v.to(device) for k, v in d.items()} for d in (self.inputs, self.present, self.target)))


def parse_mode(mode: str) -> tuple[str, ...]:
    """Modalities of a mode: ``"CT+PET" -> ("CT", "PET")``."""
    return tuple(mode.split("+"))


def mode_of(modalities: Iterable[str]) -> str:
    """The mode that shows all of the modalities: ``["PET", "CT"] -> "CT+PET"``."""
    return "+".join(in_order(modalities))


def in_order(modalities: Iterable[str]) -> tuple[str, ...]:
    """Each modality once, in the order of names and tables: CT, PET, other volumes by name, EHR, RECORD."""
    found = set(modalities)
    others = sorted(found - {CT, PET, *WRITTEN})
    return tuple(m for m in (CT, PET, *others, *WRITTEN) if m in found)


def is_volume(modality: str) -> bool:
    """Whether a modality is an image: everything but reports and records."""
    return modality not in WRITTEN


def volumes_of(modalities: Iterable[str]) -> tuple[str, ...]:
    """The images among modalities, each once, in order."""
    return tuple(m for m in in_order(modalities) if is_volume(m))
