"""What Adam keeps between rounds: its moments at the center, or the average of all centers' (``training.moments``).

A fresh AdamW each round is close to a sign step where a round has few steps. Kept, a center's own moments stay in its
vault and nothing more travels. Averaged, each center sends its moments beside its update, without the correction for
their beginning (bias), so that no count of steps travels; the server's weighted mean comes with the next order.
"""

from __future__ import annotations

import torch
from torch import Tensor

from client.methods.base import Method
from client.training.job import Job
from client.vault.vault import Vault
from common.protocol.declaration import MOMENT_MARKS
from common.protocol.messages import State

SHELF = "adam"
FIRST, SECOND = MOMENT_MARKS
STEPS = "steps/"
LONG = 1e6  # steps after which nothing is left of the correction for the beginning


class KeptMoments(Method):
    """A center's own moments, from its last round that was used to this one."""

    def __init__(self, vault: Vault):
        self._vault = vault
        self._earlier: State = {}

    def begin(self, job: Job) -> None:
        """Into the new optimizer: those of the parameters that it trains."""
        self._earlier = self._vault.load(SHELF, since=job.order.since)
        _put(job, self._earlier)

    def end(self, job: Job, leaving: State) -> State:
        """Into the vault; of what this round did not train, those of earlier ones stay."""
        own: State = {}
        for name, (first, second, steps) in _moments(job).items():
            own |= {FIRST + name: first, SECOND + name: second, STEPS + name: torch.tensor(steps)}
        self._vault.save(SHELF, {**self._earlier, **own}, order=job.order)
        return {}


class AveragedMoments(Method):
    """The weighted mean of all centers' moments, which comes with the order."""

    def begin(self, job: Job) -> None:
        """Into the new optimizer, as if it had long been descending."""
        _put(job, job.order.extra)

    def end(self, job: Job, leaving: State) -> State:
        """Two numbers for each that is sent: moments without the correction, zero where nothing was trained."""
        found = _moments(job)
        sent: State = {}
        for name, tensor in leaving.items():
            first, second = torch.zeros_like(tensor), torch.zeros_like(tensor)
            if name in found:
                own, squares, steps = found[name]
                first, second = own / (1 - BETAS[0] ** steps), squares / (1 - BETAS[1] ** steps)
            sent |= {FIRST + name: first.to(tensor.dtype), SECOND + name: second.to(tensor.dtype)}
        return sent


BETAS = (0.9, 0.999)  # AdamW's own


def _put(job: Job, moments: State) -> None:
    for name, parameter in job.model.named_trainable_parameters().items():
        if FIRST + name not in moments:
            continue
        steps = moments.get(STEPS + name, torch.tensor(LONG))
        job.optimizer.state[parameter] = {
            "step": steps.clone().float(),
            "exp_avg": moments[FIRST + name].to(parameter).clone(),
            "exp_avg_sq": moments[SECOND + name].to(parameter).clamp(min=0).clone(),
        }


def _moments(job: Job) -> dict[str, tuple[Tensor, Tensor, float]]:
    """State name -> first and second moment, on the CPU, and steps, of every parameter that was trained."""
    found = {}
    for name, parameter in job.model.named_trainable_parameters().items():
        if kept := job.optimizer.state.get(parameter):
            first, second = (kept[what].detach().cpu().clone() for what in ("exp_avg", "exp_avg_sq"))
            found[name] = (first, second, float(kept["step"]))
    return found
