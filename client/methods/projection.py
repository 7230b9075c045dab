"""Projection: no step moves a weight along what earlier steps' patients showed its layer (GPM, Saha et al., ICLR 2021).

A linear layer answers earlier inputs x as before if its change D has D x = 0. So each step of the optimizer, not the
gradient, is projected: D <- D (I - M M^T), M the directions that hold most of the energy of all inputs so far. A
gradient that was projected before Adam's scaling and weight decay would leave the subspace again.

A LoRA pair is two such layers, A on the layer's own inputs and B on what A makes of them. Biases, norms, convolutions
and decoders are not covered; the server names what is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from client.methods.base import Method
from client.methods.brought import brought
from client.training.job import Job
from client.training.keepsakes import Kept
from client.vault.vault import Vault
from common.model.adapted import AdaptedModel
from common.model.directions import off_directions
from common.protocol.keepsakes import BASIS, MOMENT, keepsake_shapes
from common.protocol.messages import State, Sums


class Projection(Method):
    """One center's end; the server's, which finds the directions, is in `server.methods.projection`."""

    def __init__(self, vault: Vault):
        self._vault = vault
        self._basis: State = {}
        self._start: State = {}

    def begin(self, job: Job) -> None:
        """Take over the directions; without any, nothing is watched."""
        found = brought(job, self._vault, "projection")
        held = {n.removeprefix(BASIS): t.double() for n, t in found.items() if n.startswith(BASIS)}
        self._basis = {n: t.to(job.model.device) for n, t in held.items() if bool(t.any())}
        self._start = {n: job.order.state[n].to(job.model.device) for n in self._basis}
        self.changes_steps = bool(self._basis)

    def step(self, named: Mapping[str, nn.Parameter], before: Mapping[str, Tensor]) -> None:
        """Take out of the way from the round's start what lies along the directions: so rounding does not add up."""
        for name in self._basis.keys() & named.keys():
            named[name].copy_(off_directions(named[name], start=self._start[name], basis=self._basis[name]))

    def keepsake(self, kept: Kept) -> Sums:
        """Second moments of what each linear layer sees: x x^T as a mean over a patient's tokens, a sum of patients."""
        names = {n.removeprefix(MOMENT) for n in keepsake_shapes(kept.order.state, kept.order.step)}
        return second_moments(kept, linear_layers(kept.model, names))


def linear_layers(model: AdaptedModel, names: set[str]) -> dict[str, nn.Linear]:
    """State name of a weight -> the linear layer that it is the weight of, where it is one's."""
    whose = {id(tensor): n for n, tensor in model.named_tensors().items() if n in names}
    layers = [m for m in model.modules() if isinstance(m, nn.Linear) and id(m.weight) in whose]
    return {whose[id(layer.weight)]: layer for layer in layers}


@torch.no_grad()
def second_moments(kept: Kept, layers: Mapping[str, nn.Linear]) -> dict[str, np.ndarray]:
    """``moment/NAME`` -> (in, in), float64: of each layer that a patient reached, nothing in it of a few."""
    seen: dict[str, list[Tensor]] = {}
    hooks = [layer.register_forward_pre_hook(_into(seen, name)) for name, layer in layers.items()]
    widths = {name: layer.in_features for name, layer in layers.items()}
    sums = {name: torch.zeros(width, width, dtype=torch.float64) for name, width in widths.items()}
    patients = {name: torch.zeros(width, width, dtype=torch.int32) for name, width in widths.items()}
    try:
        for batch, features in kept.one_by_one():
            seen.clear()
            if features is None:
                features = kept.model.encode(batch.inputs, batch.present)
            kept.model.decode(features, batch.inputs, batch.present)
            for name, rows in seen.items():
                x = torch.cat(rows).double().cpu()
                own = x.T @ x / len(x)
                sums[name] += own
                patients[name] += own != 0
    finally:
        for hook in hooks:
            hook.remove()
    return {MOMENT + name: shared(kept, total, patients[name]).numpy() for name, total in sums.items()}


def shared(kept: Kept, moment: Tensor, patients: Tensor) -> Tensor:
    """A second moment without the inputs that a few patients have, or lack, and without the products of two of which a
    few have one and not the other, or both.

    Args:
        patients: (in, in), how many have a part in each product.
    """
    own = patients.diagonal()
    gone = kept.apart(own)
    apart = kept.few(patients) | kept.few(own[:, None] - patients) | kept.few(own[None, :] - patients)
    return torch.where(gone[:, None] | gone[None, :] | (apart & ~torch.eye(len(own), dtype=torch.bool)), 0.0, moment)


def _into(seen: dict[str, list[Tensor]], name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def look(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.setdefault(name, []).append(inputs[0].detach().flatten(0, -2))

    return look
