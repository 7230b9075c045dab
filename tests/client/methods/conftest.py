"""One parameter, a job around it without model or data, and plain gradient steps on it."""

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import nn

from client.methods.base import Method
from client.training.job import Job
from common.config.run import BackboneSpec, Split
from common.config.step import Step
from common.protocol.messages import Order, State

NAME = "p/w"


@dataclass
class Bench:
    """X is the round's common start."""

    x: State = field(default_factory=lambda: {NAME: torch.tensor([1.0, -2.0])})

    def order(self, federation: Any, *, number: int = 1, since: int = 0, extra: State | None = None) -> Order:
        step = Step(name="s", federation=federation)
        return Order(step, 1, number, BackboneSpec(), "base", Split(), state=self.x, since=since, extra=extra or {})

    def job(self, order: Order) -> Job:
        nothing: Any = None
        return Job(order, "CHUM", nothing, nothing, nothing, [], nothing, seed=1)

    def begun(self, method: Method, order: Order) -> Method:
        method.begin(self.job(order))
        return method

    def corrected(self, method: Method, at: list[float], gradient: list[float]) -> list[float]:
        """The gradient at a point as the method leaves it."""
        parameter = nn.Parameter(torch.tensor(at))
        parameter.grad = torch.tensor(gradient)
        method.gradient({NAME: parameter})
        return parameter.grad.tolist()

    def descend(self, method: Method, target: torch.Tensor, *, steps: int = 3, rate: float = 0.1) -> torch.Tensor:
        """Where plain gradient steps on |w - target|^2 / 2 from X end, corrected by the method."""
        parameter = nn.Parameter(self.x[NAME].clone())
        for _ in range(steps):
            parameter.grad = (parameter - target).detach()
            method.gradient({NAME: parameter})
            with torch.no_grad():
                parameter -= rate * parameter.grad
        return parameter.detach()


@pytest.fixture
def bench() -> Bench:
    return Bench()
