"""Centers' statistics read, checked, and compared in pairs.

Two histograms of a number differ by Kolmogorov and Smirnov's distance, the largest difference of the shares at or below
an edge; two tables of levels by the share of patients who would have to change the level (total variation). Whether
chance explains that is asked by the Kolmogorov distribution (conservative for bins) and by chi-squared, and answered
for all pairs and quantities together (Holm 1979).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from common.data.quantities import FORMAT, QUANTITIES
from common.data.subgroups import LEVELS
from common.errors import ConfigError
from common.text import one_line

LEVEL = 0.05
Rows = dict[str, np.ndarray]


@dataclass(frozen=True)
class Told:
    """One center's file: histograms by quantity, and of images also by make of scanner."""

    center: str
    cases: int  # in steps of the minimum
    minimum: int
    histograms: Rows
    by_scanner: dict[str, Rows] = field(default_factory=dict)


@dataclass(frozen=True)
class Difference:
    """How far two centers lie apart in a quantity.

    Args:
        distance: 0 (alike) to 1 (nothing in common).
        p: of a difference at least as large by chance, and after Holm.
    """

    quantity: str
    centers: tuple[str, str]
    distance: float
    p: float
    adjusted: float = 1.0

    @property
    def is_told(self) -> bool:
        """Whether chance is not enough to explain it, over all that was compared."""
        return self.adjusted < LEVEL


def read_told(paths: Sequence[Path]) -> list[Told]:
    """The files of centers, by code. Raises ConfigError that lists what is wrong with any of them."""
    problems: list[str] = []
    found: dict[str, Told] = {}
    for path in paths:
        try:
            one = told_of(json.loads(path.read_text()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            problems.append(
                f"{path} is no file of `python -m client statistics` ({error}); ask that hospital for it again."
            )
            continue
        if one.center in found:
            problems.append(f"{path} is a second file of {one.center}; name one for each center.")
        found[one.center] = one
    if problems:
        raise ConfigError("\n".join(problems))
    return [found[center] for center in sorted(found)]


def differences(told: Sequence[Told]) -> list[Difference]:
    """Every pair of centers in every quantity that both told, the least likely first."""
    pairs = [
        (a, b, name)
        for a, b in combinations(told, 2)
        for name in QUANTITIES
        if name in a.histograms and name in b.histograms
    ]
    found = [_difference(name, a, b) for a, b, name in pairs]
    order = sorted(found, key=lambda one: (one.p, -one.distance, one.quantity, one.centers))
    adjusted, worst = [], 0.0
    for place, one in enumerate(order):
        worst = max(worst, min(1.0, one.p * (len(order) - place)))
        adjusted.append(Difference(one.quantity, one.centers, one.distance, one.p, worst))
    return adjusted


def distance(name: str, a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """How far apart two histograms of a quantity lie, and the chance of at least that."""
    if QUANTITIES[name].is_number:
        apart = float(np.abs(np.cumsum(a) / a.sum() - np.cumsum(b) / b.sum()).max())
        both = a.sum() * b.sum() / (a.sum() + b.sum())
        return apart, float(stats.kstwobign.sf(apart * np.sqrt(both)))
    apart = float(np.abs(a / a.sum() - b / b.sum()).sum() / 2)
    table = np.stack([a, b])[:, (a + b) > 0]
    return apart, 1.0 if table.shape[1] < 2 else float(stats.chi2_contingency(table, correction=False).pvalue)


def _difference(name: str, a: Told, b: Told) -> Difference:
    apart, p = distance(name, a.histograms[name], b.histograms[name])
    return Difference(name, (a.center, b.center), apart, p)


def told_of(given: Mapping[str, Any]) -> Told:
    """A center's statistics in the form of its file. Raises ValueError, KeyError or TypeError for what is none."""
    if given["format"] != FORMAT:
        raise ValueError(f"format {one_line(str(given['format']), 20)}, this release reads {FORMAT}")
    cases = _whole(given["cases"])
    by_scanner = {_make(make): _rows(rows, cases) for make, rows in given["by_scanner"].items()}
    center = str(given["center"])
    if not (center.replace("-", "").replace("_", "").isalnum() and len(center) <= 32):
        raise ValueError("its center has no code")
    return Told(center, cases, _whole(given["minimum"]), _rows(given["histograms"], cases), by_scanner)


def _make(name: str) -> str:
    if name not in LEVELS["scanner"]:
        raise ValueError(f"'{one_line(name, 40)}' is none of this release's makes of scanner")
    return name


def _rows(given: Mapping[str, Any], cases: int) -> Rows:
    found: Rows = {}
    for name, row in given.items():
        if name not in QUANTITIES:
            raise ValueError(f"'{one_line(name, 40)}' is none of this release's quantities")
        counts = np.array([_whole(count) for count in row], np.float64)
        if len(counts) != len(QUANTITIES[name].bins) or not 0 < counts.sum() <= cases:
            raise ValueError(f"'{name}' has {len(counts)} bins and {counts.sum():g} patients of {cases}")
        found[name] = counts
    return found


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 31:
        raise ValueError(f"{str(value)[:20]!r} is no number of patients")
    return value
