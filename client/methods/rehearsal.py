"""Rehearsal: centers of earlier steps go on taking part with a few of their training cases, drawn once at random.

The cases stay at their center, and so does who they are: the vault holds keyed hashes. Every other center of the step
trains on all of its own. A center's weight follows the cases that it trained, so the rehearsed share of the aggregate
follows the size of the memories.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import torch

from client.data.case import Case
from client.methods.base import Method
from client.vault.memory import remember, remembered
from client.vault.vault import Vault
from common.config.methods.continual import FewShotMethod, RehearsalMethod
from common.protocol.messages import Order
from common.seeding import generator_for

T = TypeVar("T")


class Rehearsal(Method):
    """One center's memory.

    Args:
        spec: where memories are trained on, and of how many cases.
    """

    def __init__(self, spec: RehearsalMethod, vault: Vault):
        self.spec = spec
        self._vault = vault

    def cases(self, order: Order, code: str, cases: Sequence[Case]) -> list[Case]:
        """The memory at a center that rehearses, everybody elsewhere."""
        if code not in self.spec.at:
            return list(cases)
        known = remembered(self._vault, cases)
        if known is not None:
            return known
        lineage = order.step.writes or order.step.name
        picked = drawn(cases, self.spec.cases, generator=generator_for(order.seed, lineage, code, "memory"))
        remember(self._vault, picked)
        return picked


class FewShot(Method):
    """A few of each center's training cases, the same in every round: drawn by the run's seed, so nothing is kept."""

    def __init__(self, spec: FewShotMethod):
        self.spec = spec

    def cases(self, order: Order, code: str, cases: Sequence[Case]) -> list[Case]:
        """So many of them; all where there are no more."""
        number = math.ceil(self.spec.fraction * len(cases)) if self.spec.fraction > 0 else self.spec.cases
        return drawn(cases, number, generator=generator_for(order.seed, order.step.name, code, "shots"))


def drawn(cases: Sequence[T], number: int, *, generator: torch.Generator) -> list[T]:
    """So many of the cases, each set as likely as any other, in their own order; all where there are no more."""
    places = torch.randperm(len(cases), generator=generator)[:number].tolist()
    return [cases[place] for place in sorted(places)]
