"""FedProx: a pull towards the round's common start (Li et al., MLSys 2020)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from client.methods.base import Method, pull
from client.training.job import Job
from common.protocol.messages import State


class Proximal(Method):
    """Adds mu (y - x) to each gradient, x being the order's state.

    Args:
        strength: mu.
    """

    def __init__(self, strength: float):
        self.strength = strength
        self._start: State = {}

    def begin(self, job: Job) -> None:
        """Remember x."""
        self._start = job.order.state

    def gradient(self, named: Mapping[str, nn.Parameter]) -> None:
        """mu (y - x)."""
        pull(named, self._start, self.strength)
