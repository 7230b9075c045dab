"""Continual methods: how a step goes on with a lineage that earlier steps wrote, and what keeps these known."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class SequentialMethod:
    """Plain training on from the lineage's head: nothing keeps what was known. The lower bound of every other one."""

    kind: str = "sequential"
