"""Method: what a step may ask of local training beside the task's own loss, as hooks into a `Job`.

One batch goes through them in this order: `batches` hands it on, the model answers, `loss` is added to the task's,
`penalty` and `gradient` change what the backward pass gave, the gradient is clipped, the optimizer takes its step, and
`step` may change where that led.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from client.data.case import Case
from client.training.batches import Item, Turn
from client.training.job import Answer, Job
from client.training.keepsakes import Kept
from common.model.adapted import AdaptedModel
from common.protocol.messages import Order, State, Sums


class Method:
    """A method overrides the hooks that it needs; the others do nothing.

    One lives for the length of one message. What it must remember goes through the center's vault: it reads the entry
    of the order's ``since``, so that an update that was not used leaves no trace.
    """

    replaces_task = False  # whether what it adds is all that is descended on; the task's loss is still told
    changes_steps = False  # whether `step` does anything: values before a step are kept for it

    def cases(self, order: Order, code: str, cases: Sequence[Case]) -> list[Case]:
        """Who of a center's training cases is trained on, before any of them is opened; never anybody else.

        Args:
            code: the center's.
        """
        return list(cases)

    def begin(self, job: Job) -> None:
        """Before the first batch: read the vault, change the model's start."""

    def batches(self, stream: Iterable[Item | Turn]) -> Iterable[Item | Turn]:
        """The batches that are trained on, in their order; others may be put between them, and turns of one's own."""
        return stream

    def loss(self, answer: Answer) -> Tensor | None:
        """Added to the task's loss of a batch. It may look at patients: it is inside whatever clips the gradient of
        each of them and adds noise to it."""
        return None

    def penalty(self, model: AdaptedModel) -> Tensor | None:
        """Added to the loss, of weights and of arrays that were released before alone: outside whatever clips and
        noises the gradients of patients. A part that the batch did not reach gets no gradient from it."""
        return None

    def gradient(self, named: Mapping[str, nn.Parameter]) -> None:
        """At each batch, between the backward pass and clipping, as if it were part of the loss.

        Args:
            named: state name -> parameter with a gradient; a part that the batch did not reach has none.
        """

    def step(self, named: Mapping[str, nn.Parameter], before: Mapping[str, Tensor]) -> None:
        """After the optimizer's step, whose moments and weight decay no gradient tells: change where it led.

        Args:
            named: state name -> parameter that moved.
            before: the same names -> values before the step.
        """

    def end(self, job: Job, leaving: State) -> State:
        """After the last batch: write the vault. Returns what leaves beside the update, by declared names.

        Args:
            leaving: the tensors that this center sends back, as trained.
        """
        return {}

    def keepsake(self, kept: Kept) -> Sums:
        """Once, at a step's end, of the state that it keeps: sums over the training cases, by the names that
        `common.protocol.keepsakes` declares. They pass the release gate and the server's screen, are added over the
        centers, and become what later steps' orders bring (`server.methods`)."""
        return {}

    def counts(self) -> dict[str, int]:
        """What is told beside the update after the last batch, by names of `common.protocol.wire.COUNTS_OF`."""
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
