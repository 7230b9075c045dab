"""Continual methods: how a step goes on with a lineage that earlier steps wrote, and what keeps these known."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class FeaturesMethod:
    """Feature distillation: the adapted encoder goes on saying of each case what it said when the step began."""

    strength: float = 1.0  # of the mean squared difference of features; 0: as sequential
    kind: str = "features"


@dataclass
class LwfMethod:
    """Learning without forgetting: the model goes on answering as it did when the step began (Li & Hoiem, 2016)."""

    strength: float = 1.0  # of T^2 KL(before || now); 0: as sequential
    temperature: float = 2.0  # T, of both answers
    kind: str = "lwf"


@dataclass
class SequentialMethod:
    """Plain training on from the lineage's head: nothing keeps what was known. The lower bound of every other one."""

    kind: str = "sequential"
