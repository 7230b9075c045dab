"""Server optimisers: the mean's step D = mean - start taken as a gradient (Reddi et al., ICLR 2021, algorithm 2).

    FedAvgM      m <- beta m + D                                  x <- x + eta m          (Hsu et al. 2019)
    others       m <- beta1 m + (1 - beta1) D                     x <- x + eta m / (sqrt(v) + tau)
    FedAdagrad   v <- v + D^2
    FedAdam      v <- beta2 v + (1 - beta2) D^2
    FedYogi      v <- v - (1 - beta2) D^2 sign(v - D^2)

v starts at tau^2, m at 0, without bias correction, as in the paper. Moments are float64 and go into the checkpoint
(``momentum/<name>``, ``second/<name>``); a tensor that no update carries keeps its value and its moments, so that a
factor at rest (RoLoRA) is not moved by what it remembers. Sum-only, no bytes beyond the mean's; the fixed points are
the mean's, the path is not. Not for LoRA rules that stack factors: there is no one tensor to take a step with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from common.protocol.messages import State
from server.aggregation.mean import means
from server.aggregation.types import Aggregated, Setting, Update

MOMENTUM, SECOND = "momentum/", "second/"


def fedavgm(updates: Iterable[Update], start: State, memory: State, setting: Setting) -> Aggregated:
    """Momentum on the server; the rule ``fedavgm``."""
    spec = setting.federation
    state, kept = dict(start), dict(memory)
    for name, mean in means(updates, start=start).items():
        step = mean - start[name]
        moment = spec.momentum * memory[MOMENTUM + name] + step if MOMENTUM + name in memory else step
        kept[MOMENTUM + name] = moment
        state[name] = (start[name] + spec.learning_rate * moment).to(start[name].dtype)
    return Aggregated(state, kept)


def _adagrad(second: Tensor, squared: Tensor, spec) -> Tensor:
    return second + squared


def _adam(second: Tensor, squared: Tensor, spec) -> Tensor:
    return spec.beta2 * second + (1 - spec.beta2) * squared


def _yogi(second: Tensor, squared: Tensor, spec) -> Tensor:
    return second - (1 - spec.beta2) * squared * torch.sign(second - squared)


SECOND_MOMENTS: dict[str, Callable] = {"fedadagrad": _adagrad, "fedadam": _adam, "fedyogi": _yogi}


def adaptive(updates: Iterable[Update], start: State, memory: State, setting: Setting) -> Aggregated:
    """A step scaled per coordinate; the rules ``fedadagrad``, ``fedadam`` and ``fedyogi``."""
    spec = setting.federation
    grow = SECOND_MOMENTS[spec.kind]
    state, kept = dict(start), dict(memory)
    for name, mean in means(updates, start=start).items():
        step = mean - start[name]
        first = memory[MOMENTUM + name] if MOMENTUM + name in memory else torch.zeros_like(step)
        second = memory[SECOND + name] if SECOND + name in memory else torch.full_like(step, spec.tau**2)
        first = spec.beta1 * first + (1 - spec.beta1) * step
        second = grow(second, step * step, spec)
        kept[MOMENTUM + name], kept[SECOND + name] = first, second
        moved = start[name] + spec.learning_rate * first / (second.sqrt() + spec.tau)
        state[name] = moved.to(start[name].dtype)
    return Aggregated(state, kept)
