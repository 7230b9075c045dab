"""Method: what a federation may ask of local training beside the task's own loss, as hooks into a `Job`."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from client.training.job import Job
from common.protocol.messages import Order, State


class Method:
    """A method overrides the hooks that it needs; the others do nothing.

    One lives for the length of one message. What it must remember goes through the center's vault: it reads the entry
    of the order's ``since``, so that an update that was not used leaves no trace.
    """

    def begin(self, job: Job) -> None:
        """Before the first batch: read the vault, change the model's start."""

    def gradient(self, named: Mapping[str, nn.Parameter]) -> None:
        """At each batch, between the backward pass and clipping, as if it were part of the loss.

        Args:
            named: state name -> parameter with a gradient; a part that the batch did not reach has none.
        """

    def end(self, job: Job, leaving: State) -> State:
        """After the last batch: write the vault. Returns what leaves beside the update, by declared names.

        Args:
            leaving: the tensors that this center sends back, as trained.
        """
        return {}

    def own(self, order: Order) -> State:
        """Tensors in which this center's model differs from the common one, for scoring."""
        return {}


@torch.no_grad()
def pull(named: Mapping[str, nn.Parameter], towards: Mapping[str, Tensor], strength: float) -> None:
    """Add strength (y - x) to each gradient: that of strength / 2 |y - x|^2."""
    for name, parameter in named.items():
        assert parameter.grad is not None
        parameter.grad += strength * (parameter - towards[name].to(parameter.device))


@torch.no_grad()
def push(named: Mapping[str, nn.Parameter], constant: Mapping[str, Tensor]) -> None:
    """Add a constant to the gradients that have one."""
    for name, parameter in named.items():
        if name in constant:
            assert parameter.grad is not None
            parameter.grad += constant[name].to(parameter.device, parameter.dtype)
