"""The server's end of EWC: Fishers of all steps as one quadratic form, or one that fades, around the last end."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from common.protocol.keepsakes import ANCHOR, FISHER, TASKS
from common.protocol.messages import State
from server.methods.base import Begun, End, Ended, counted, placed


@dataclass(frozen=True)
class EwcEnd(End):
    """Adds steps up: sum_k F_k (x - x_k)^2 = F (x - x*)^2 + constant, F = sum_k F_k, x* = sum_k F_k x_k / F."""

    kind: str = "ewc"

    def keeps(self, ended: Ended, before: State) -> State:
        """F and x* of every step so far, float64; a tensor that a step lacks stays as it was."""
        found, names = {**before, TASKS: counted(before, TASKS)}, placed(ended.step, ended.state, base=ended.base)
        for name in (n.removeprefix(FISHER) for n in ended.told if n.startswith(FISHER)):
            fisher, place = torch.from_numpy(ended.told[FISHER + name]) / ended.cases, names[name]
            earlier = (before[FISHER + place], before[ANCHOR + place]) if FISHER + place in before else None
            total, center = self.added(fisher, ended.state[name].double(), earlier)
            found |= {FISHER + place: total, ANCHOR + place: center}
        return found

    def added(self, fisher: Tensor, ended_at: Tensor, earlier: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
        """Curvature and center of a tensor's quadratic form with one more step."""
        if earlier is None:
            return fisher, ended_at
        total = earlier[0] + fisher
        weighted = (earlier[0] * earlier[1] + fisher * ended_at) / total
        return total, torch.where(earlier[0] == 0, ended_at, weighted)  # so also where neither holds anything

    def brings(self, begun: Begun, kept: State) -> State:
        """F and x* of the tensors that this step shares with earlier ones, and how many steps they are of."""
        found = {f"{self.kind}/{TASKS}": kept.get(TASKS, torch.zeros((), dtype=torch.int64))}
        for name, place in placed(begun.step, begun.start, base=begun.base).items():
            if FISHER + place in kept:
                found |= {f"{self.kind}/{mark}{name}": kept[mark + place].float() for mark in (FISHER, ANCHOR)}
        return found


@dataclass(frozen=True)
class OnlineEwcEnd(EwcEnd):
    """F <- gamma F + F_t around the last step's end (Schwarz et al., 2018). Below gamma = 1 it stays bounded.

    Args:
        decay: gamma.
    """

    kind: str = "online_ewc"
    decay: float = 0.9

    def added(self, fisher: Tensor, ended_at: Tensor, earlier: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
        """gamma F + F_t, around this step's end."""
        return (fisher if earlier is None else self.decay * earlier[0] + fisher), ended_at
