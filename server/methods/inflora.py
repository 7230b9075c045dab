"""The server's end of InfLoRA: which rows of factor A a step gets, off what earlier patients showed their layers.

The centers tell the second moments of their new patients' layer inputs before the first round, and those at the state
that is kept after the last one. Both are sums over centers, whose eigenvectors are those of all raw inputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from common.adapters.lowrank import A, B, Pair, pairs_of
from common.config.limits.patterns import matches_any
from common.config.step import Step
from common.protocol.keepsakes import BASIS, MOMENT, USED
from common.protocol.messages import State, Sums
from server.methods.base import Begun, Ended, KeepsakeMissing, placed
from server.methods.projection import ProjectionEnd, beyond

NOTHING_LEFT = 1e-12  # of all energy: below it a direction is one that rounding made
LENGTH = 3**-0.5  # of a row: what peft draws has it on average, and the released code divides by it


@dataclass(frozen=True)
class InfLoraEnd(ProjectionEnd):
    """Grows the directions of earlier inputs as projection does, and makes each step's rows off them.

    Args:
        energy: epsilon, the share of earlier inputs' energy that new rows keep off.
        rank: rows of a step.
    """

    rank: int = 2

    def keeps(self, ended: Ended, before: State) -> State:
        """The directions with this step's in them, and how many rows are used."""
        return {**super().keeps(ended, before), USED: _used(before) + self.rank}

    def brings(self, begun: Begun, kept: State) -> State:
        """How many rows earlier steps have used: what a center must let rest."""
        return {f"inflora/{USED}": _used(kept)}

    def opens(self, begun: Begun, told: Sums, kept: State) -> State:
        """The start with this step's rows in factor A. Raises KeepsakeMissing where they are in use already."""
        used, names = int(_used(kept)), placed(begun.step, begun.start, base=begun.base)
        own, found = slice(used, used + self.rank), dict(begun.start)
        for pair in _training(begun.step, begun.start):
            a, b = begun.start[pair.name(A)], begun.start[pair.name(B)]
            if used + self.rank > len(a) or bool(b[:, own].any()):
                raise KeepsakeMissing(
                    f"Step '{begun.step.name}' makes rows {used + 1} to {used + self.rank} of part '{pair.part}' its "
                    f"own, which has {len(a)}, and these are in use or not there. Give the part a larger rank in every "
                    "step of the lineage, in a new run, or let this step write a lineage of its own."
                )
            if MOMENT + pair.name(A) not in told:  # a convolution's: it keeps the seed's rows
                continue
            moment = torch.from_numpy(told[MOMENT + pair.name(A)]) / float(told["fit.cases"])
            basis = kept.get(BASIS + names[pair.name(A)], moment.new_zeros(len(moment), 0))
            found[pair.name(A)] = a.clone()
            found[pair.name(A)][own] = LENGTH * rows_off(basis, moment, rows=self.rank).to(a.dtype)
        return found

    def settled(self, before: State, after: State, brought: State) -> State:
        """A round's aggregate with the columns that rest put back: a mean of equals rounds."""
        if self.rank == 0:
            return after
        used, found = int(brought[f"inflora/{USED}"]), dict(after)
        for name in (n for n in after if n.endswith(f".{B}")):
            found[name] = before[name].clone()
            own = slice(used, used + self.rank)
            found[name][:, own] = after[name][:, own]
        return found

    def remarks(self, begun: Begun, brought: State) -> str:
        """Which rows are the step's own, and where nothing was left for one."""
        used, pairs = int(brought[f"inflora/{USED}"]), list(_training(begun.step, begun.start))
        if self.rank == 0 or not pairs:
            return ""
        own = [begun.start[pair.name(A)][used : used + self.rank] for pair in pairs]
        short = sum(bool((rows.flatten(1) == 0).all(dim=1).any()) for rows in own)
        room = max(len(begun.start[pair.name(A)]) for pair in pairs)
        return (
            f"inflora makes rows {used + 1} to {used + self.rank} of {room} this step's own in {len(pairs)} layers"
            + (f"; in {short} of them earlier steps leave fewer directions than that" if short else "")
        )


def rows_off(basis: Tensor, moment: Tensor, *, rows: int) -> Tensor:
    """The main directions of new inputs off those of earlier ones, (rows, d), float64, orthonormal; a row for which
    nothing is left is zero, and learns nothing.

    Args:
        basis: (d, k), orthonormal columns: where earlier inputs have their energy.
        moment: (d, d), second moments of the new inputs.
    """
    values, vectors = beyond(basis, moment)
    found = moment.new_zeros(rows, len(moment))
    there = min(rows, int((values > NOTHING_LEFT * moment.trace()).sum()))
    directions = vectors[:, :there] - basis @ (basis.T @ vectors[:, :there])
    largest = directions.gather(0, directions.abs().argmax(dim=0, keepdim=True))  # an eigenvector's sign is free
    found[:there] = (directions * largest.sign() / directions.norm(dim=0)).T
    return found


def _training(step: Step, state: State) -> Iterator[Pair]:
    return (pair for pair in pairs_of(state, step.adapter.parts) if matches_any(pair.part, step.train_parts))


def _used(kept: State) -> Tensor:
    return kept.get(USED, torch.zeros((), dtype=torch.int64))
