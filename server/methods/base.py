"""End: the server's end of a method: what becomes of centers' sums, and what a step's orders bring of earlier steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from common.config.step import Step
from common.errors import FedgraftError
from common.protocol.messages import State, Sums
from common.store.lineage import identities


class KeepsakeMissing(FedgraftError):
    """A step's method goes on from what the steps before it should have kept, and they have not."""

    code = "keepsake"


@dataclass(frozen=True)
class Begun:
    """A step that begins.

    Args:
        base: digest of the frozen model that it stands on.
        seeded: tensors of the start that a seed makes at every center: they need not travel.
    """

    step: Step
    start: State
    base: str
    seeded: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Ended:
    """A step that has ended.

    Args:
        state: the one that it keeps.
        base: digest of the frozen model that it stands on.
        told: what its centers answered, added up; ``fit.cases`` says over how many patients.
    """

    step: Step
    state: State
    base: str
    told: Sums

    @property
    def cases(self) -> float:
        """Patients, over all centers."""
        return float(self.told["fit.cases"])


class End:
    """Overrides what a kind of method needs; another does nothing at the server."""

    def keeps(self, ended: Ended, before: State) -> State:
        """What later steps go on from, after a step.

        Args:
            before: what the step itself went on from; empty for the first.
        """
        return {}

    def brings(self, begun: Begun, kept: State) -> State:
        """What each order of a step brings beside the state, by the names of `common.protocol.keepsakes`.

        Args:
            kept: what the start's own step left, see `keeps`; empty for a step that starts from the seed.
        """
        return {}

    def opens(self, begun: Begun, told: Sums, kept: State) -> State:
        """A step's start as the method makes it before the first round, of kinds in `common.config.methods.OPENING`.

        Args:
            told: what the step's centers answered, added up; ``fit.cases`` says over how many patients.
            kept: what the start's own step left, see `keeps`.
        """
        return begun.start

    def settled(self, before: State, after: State, brought: State) -> State:
        """A round's aggregate as the method leaves it.

        Args:
            before: the round's start.
            brought: what the step's orders bring, see `brings`.
        """
        return after

    def remarks(self, begun: Begun, brought: State) -> str:
        """One line for people, as the step begins; empty where there is nothing to say."""
        return ""


def placed(step: Step, state: Mapping[str, Tensor], *, base: str) -> dict[str, str]:
    """State name -> its name in a keepsake, the same in all steps that share the part and in no other."""
    parts = identities(step, dict(state), base=base)
    return {name: f"{parts[name.partition('/')[0]]}/{name}" for name in state}


def counted(before: State, name: str) -> torch.Tensor:
    """One more than before."""
    return before.get(name, torch.zeros((), dtype=torch.int64)) + 1
