"""A cohort of several centers as rows, its folds, and what an arm is asked to learn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from client.data.case import Case
from common.config.federation import FedAdamFederation, MeanFederation
from common.exact.columns import Layout, LinearModel, Rows

INNER_FOLDS = 3
Tables = dict[str, Rows]  # center -> its cases; target columns: time in days, event


@dataclass
class Cohort:
    """Patients with an outcome, by center; positions within a center are the same in every field."""

    cases: dict[str, list[Case]]
    rows: Tables
    layout: Layout

    @property
    def centers(self) -> list[str]:
        """Codes, sorted."""
        return sorted(self.rows)

    @property
    def sizes(self) -> list[int]:
        """Patients of each center, in the order of `centers`."""
        return [len(self.rows[center]) for center in self.centers]

    def take(self, positions: Mapping[str, np.ndarray]) -> Tables:
        """The rows at these positions, of the centers that have any."""
        return {c: self.rows[c].take(p) for c, p in sorted(positions.items()) if len(p)}


@dataclass
class Learning:
    """How the arms learn: the penalty's grid (one value switches the choice off), and the federations by gradient
    descent (rounds, local full-batch steps and their rate on the mean loss of a case, FedAdam's settings)."""

    penalties: list[float] = field(default_factory=lambda: [1.0, 3.0, 10.0, 30.0, 100.0])
    rounds: int = 50
    local_steps: int = 5
    local_rate: float = 0.1
    fedavg: Any = field(default_factory=lambda: MeanFederation(weighting="n"))
    fedadam: Any = field(default_factory=lambda: FedAdamFederation(weighting="n", learning_rate=0.03))


Models = dict[str, LinearModel | None]  # None: nothing could be learned, everyone has the same risk


@dataclass
class Task:
    """What an arm learns from: training rows by center, and the penalty that was chosen within all of them; and whom
    it must serve: every center, also one whose only patient is being tested."""

    centers: list[str]
    train: Tables
    layout: Layout
    learning: Learning
    penalty: float


@dataclass
class Fold:
    """One fold of one repeat: positions of its test patients by center, what was learned from, every arm's models."""

    repeat: int
    test: dict[str, np.ndarray]
    task: Task
    models: dict[str, Models]  # by arm
