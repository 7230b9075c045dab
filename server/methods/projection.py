"""The server's end of projection: the directions that hold the energy of all steps' layer inputs, and what leaves them.

GPM (Saha et al., ICLR 2021) finds them from raw features at one place. Here the centers send second moments, whose sum
over centers has the same eigenvectors (FOT, arXiv 2309.01289); float64 all the way, for float32 sums lose 4e-5.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from common.model.directions import off_directions
from common.protocol.keepsakes import BASIS, MOMENT, TASKS, trained_in_step
from common.protocol.messages import State
from server.methods.base import Begun, End, Ended, counted, placed


@dataclass(frozen=True)
class ProjectionEnd(End):
    """Grows a basis for each covered weight, step by step, and keeps what is aggregated off it.

    Args:
        energy: epsilon, the share of the inputs' energy that the directions hold.
    """

    energy: float = 0.97

    def keeps(self, ended: Ended, before: State) -> State:
        """The bases with this step's directions in them."""
        found, names = {**before, TASKS: counted(before, TASKS)}, placed(ended.step, ended.state, base=ended.base)
        for name in (n.removeprefix(MOMENT) for n in ended.told if n.startswith(MOMENT)):
            moment, place = torch.from_numpy(ended.told[MOMENT + name]) / ended.cases, BASIS + names[name]
            basis = grown(before.get(place, moment.new_zeros(len(moment), 0)), moment, energy=self.energy)
            if basis.shape[1]:
                found[place] = basis
        return found

    def brings(self, begun: Begun, kept: State) -> State:
        """The bases of what this step shares with earlier ones, filled up with columns of zeros to squares."""
        found = {f"projection/{TASKS}": kept.get(TASKS, torch.zeros((), dtype=torch.int64))}
        for name, place in placed(begun.step, begun.start, base=begun.base).items():
            if BASIS + place in kept:
                basis = kept[BASIS + place]
                found[f"projection/{BASIS}{name}"] = torch.nn.functional.pad(
                    basis, (0, len(basis) - basis.shape[1])
                ).float()
        return found

    def settled(self, before: State, after: State, brought: State) -> State:
        """A round's aggregate, off the directions: a median or an adaptive optimizer of the server's leaves them."""
        found = dict(after)
        for name in after:
            basis = brought.get(f"projection/{BASIS}{name}")
            if basis is not None and bool(basis.any()):
                found[name] = off_directions(after[name], start=before[name], basis=basis)
        return found

    def remarks(self, begun: Begun, brought: State) -> str:
        """How much is covered, and what is not."""
        held = {n.removeprefix(f"projection/{BASIS}"): t for n, t in brought.items() if BASIS in n}
        trained = trained_in_step(begun.start, begun.step)
        free = [name for name in trained if name not in held]
        shown = ", ".join(free[:4]) + (f" and {len(free) - 4} more" if len(free) > 4 else "")
        full = sum(bool(t.any(dim=0).all()) for t in held.values())
        return (
            f"projection holds {len(trained) - len(free)} of {len(trained)} trained tensors"
            + (f", {full} of them whole: nothing is left there to learn" if full else "")
            + (f"; free are {shown}" if free else "")
        )


def grown(basis: Tensor, moment: Tensor, *, energy: float) -> Tensor:
    """A basis with the fewest directions added that hold a share of a moment's energy, those it has counted in.

    Args:
        basis: (d, k), orthonormal columns.
        moment: (d, d), second moments of inputs; its trace is their energy.
    """
    total = moment.trace()
    if total <= 0 or energy <= 0:
        return basis
    values, vectors = beyond(basis, moment)
    added = wanted(values, held=float(total - values.sum()), energy=energy, total=float(total))
    added = min(added, len(moment) - basis.shape[1])
    if not added:
        return basis
    whole, _ = torch.linalg.qr(torch.cat([basis, vectors[:, :added]], dim=1))
    return whole


def beyond(basis: Tensor, moment: Tensor) -> tuple[Tensor, Tensor]:
    """A moment's energies off a basis, descending, and their directions as columns."""
    off = torch.eye(len(moment), dtype=moment.dtype) - basis @ basis.T
    rest = off @ moment @ off
    values, vectors = torch.linalg.eigh((rest + rest.T) / 2)
    return values.flip(0).clamp(min=0), vectors.flip(1)


def wanted(values: Tensor, *, held: float, energy: float, total: float) -> int:
    """The smallest k with held + the k largest values >= energy * total; values are descending squares."""
    reached = held + torch.cat([values.new_zeros(1), values.cumsum(0)])
    return int((reached < energy * total * (1 - 1e-12)).sum())
