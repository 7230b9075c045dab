"""Columns in public ranges: what makes one patient's row of an exact fit as short as noise on its sums needs.

A frozen model's features are standardised within the patient and of length 1 together. A recorded variable goes from -1
to 1 over a range that is common knowledge, and what lies beyond is at its end. Then the whole row is shortened to the
step's public ``clip``. Nothing of it is computed from more than one patient, so it costs no privacy, and a model that
was fitted so sees new patients in the same way.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from common.data.records import ORDERED, SCHEMA

USUAL = {  # of numbers, in the units of the schema: where nearly all adults with such a tumor are
    "age": (30.0, 90.0),
    "performance_status": (0.0, 4.0),
    "tumor_volume_ml": (math.log(1.0), math.log(200.0)),
    "weight_kg": (40.0, 120.0),
}


def ranges_of(names: Sequence[str]) -> Tensor:
    """(F, 2) float64: the lowest and highest usual value of columns of a record."""
    known: dict[str, tuple[float, float]] = {}
    for variable in SCHEMA.values():
        ends = (0.0, len(variable.levels) - 1.0) if variable.kind == ORDERED else (0.0, 1.0)
        known |= dict.fromkeys(variable.columns, USUAL.get(variable.name, ends))
    return torch.tensor([known[name] for name in names], dtype=torch.float64).reshape(-1, 2)


def within_range(values: Tensor, ranges: Tensor, known: Tensor) -> Tensor:
    """Values (n, F) from -1 to 1 over their ranges (F, 2), zero where not recorded.

    Args:
        known: (n, F), 1 where recorded.
    """
    low, high = ranges.T
    return ((2 * (values - low) / (high - low) - 1).clamp(-1, 1) * known).double()


def of_length_one(features: Tensor) -> Tensor:
    """Features (n, W) without their own mean, each row of length 1; a row of equal ones is zero."""
    spread = features.double() - features.double().mean(dim=1, keepdim=True)
    length = spread.norm(dim=1, keepdim=True)
    return torch.where(length > 1e-12, spread / length.clamp(min=1e-12), torch.zeros_like(spread))


def shortened(values: Tensor, flags: Tensor, *, longest: float, with_flags: bool) -> tuple[Tensor, Tensor]:
    """Values and flags of rows, each row at most that long; without ``with_flags`` flags are no columns."""
    row = torch.cat([values, flags], dim=1) if with_flags else values
    factor = (longest / row.norm(dim=1, keepdim=True).clamp(min=1e-12)).clamp(max=1.0)
    return values * factor, flags * factor if with_flags else flags
