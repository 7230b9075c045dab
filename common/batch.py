"""Batch: what a model sees and what a task compares it with. Modalities are named, never channel indices."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

CT, PET, EHR, RECORD = "CT", "PET", "EHR", "RECORD"
MODALITIES = (CT, PET, EHR, RECORD)
VOLUMES = (CT, PET)


@dataclass
class Batch:
    """Inputs, presence flags and targets of B cases.

    Args:
        inputs: ``CT`` and ``PET`` are float (B, 1, D, H, W), axes ordered inferior-superior, posterior-anterior,
            left-right; ``EHR`` is the tokenised report, int64 (B, L), 0 = padding; ``RECORD`` the recorded values and
            their known flags, float64 (B, F + V), as `common.records` lays them out. A modality that a case lacks is
            zero there; a modality that no case has may be absent from the dict.
        present: per modality, bool (B,). A modality missing from the dict is present nowhere.
        target: named tensors with leading dimension B; which names, the task says.
    """

    inputs: dict[str, Tensor]
    present: dict[str, Tensor]
    target: dict[str, Tensor]

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        return Batch(*({k: v.to(device) for k, v in d.items()} for d in (self.inputs, self.present, self.target)))
