"""The peers' job: clients whose training is next to nothing, so that what is timed is the federation around it.

Seven clients, eight rounds, 1.31 M parameters (5.2 MB): each takes five steps of a tenth of the way to a point of its
own. Three ways: a plain loop in torch, Flower's own FedAvg in this process with every message as bytes, and this
project's rounds with orders and replies handed over, every guard, record and checkpoint included. All end with the same
numbers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg

from client.app import Verbs
from client.center.center import Center
from common.errors import RoundFailed
from common.protocol.messages import Order, Reply, State
from common.protocol.wire import declared_sums
from common.tasks import build_task
from simulations.virtual.local_grid import LocalGrid

SIDE, LAYERS = 512, 5  # five matrices of 512 x 512 and a vector: 1.31 M parameters
STEPS, STEP = 5, 0.1
Marks = list[float]  # process seconds at the end of each round


@dataclass(frozen=True)
class Job:
    """The same work for everyone."""

    clients: int = 7
    rounds: int = 8
    layers: int = LAYERS

    def start(self) -> State:
        """The state that the first round begins with."""
        generator = torch.Generator().manual_seed(5)
        shapes = {f"decoder/{i}.weight": (SIDE, SIDE) for i in range(self.layers)} | {"decoder/bias": (SIDE,)}
        return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def moved(state: State, client: int) -> State:
    """A client's work: five steps of a tenth of the way to its own number."""
    found = {name: tensor.clone() for name, tensor in state.items()}
    for _ in range(STEPS):
        for tensor in found.values():
            tensor.add_(client - tensor, alpha=STEP)
    return found


def plain(job: Job) -> tuple[State, Marks]:
    """A loop over clients, and the mean of what they trained."""
    state, marks = job.start(), [time.process_time()]
    for _ in range(job.rounds):
        trained = [moved(state, client) for client in range(job.clients)]
        state = {name: torch.stack([each[name] for each in trained]).mean(dim=0) for name in state}
        marks.append(time.process_time())
    return state, marks


def stock_flower(job: Job, files: dict[str, Path]) -> tuple[State, Marks]:
    """Flower's FedAvg over a Grid in this process: an order, a reply and no validation, each as bytes."""
    app, marks = ClientApp(), [time.process_time()]

    @app.train()
    def train(message: Message, context: Context) -> Message:
        state = message.content.array_records["arrays"].to_torch_state_dict()
        record = ArrayRecord(moved(state, context.node_id % 100))
        return Message(RecordDict({"arrays": record, "metrics": MetricRecord({"num-examples": 1})}), reply_to=message)

    grid = StockGrid(dict(sorted(files.items())[: job.clients]), app)
    fedavg = FedAvg(fraction_evaluate=0.0)
    result = fedavg.start(
        grid, ArrayRecord(job.start()), num_rounds=job.rounds, evaluate_fn=lambda number, arrays: marks.append(
            time.process_time()) if number else None,
    )  # fmt: skip
    grid.close()
    return dict(result.arrays.to_torch_state_dict()), marks


class StockGrid(LocalGrid):
    """Another app's nodes in this process."""

    def __init__(self, files: dict[str, Path], app: ClientApp):
        super().__init__(files, workers=0)
        self._app = app


def verbs_of(job: Job, codes: Iterable[str]) -> Verbs:
    """Centers of ours that do the same work, and score nothing."""
    number = {code: index for index, code in enumerate(sorted(codes))}

    def answered(center: Center, order: Order, state: State) -> Reply:
        shapes = declared_sums(build_task(order.step.task), curves=False)
        sums = {name: np.zeros(shape) for name, shape in shapes.items()} | {"fit.cases": np.ones(())}
        counts = {"cases": 1, "batches": 1} if state else {"cases": 1}
        return Reply(center.code, state=state, sums=sums, counts=counts)

    return Verbs(
        train=lambda center, order: answered(center, order, moved(order.state, number[center.code])),
        evaluate=lambda center, order: answered(center, order, {}),
        declared=lambda center, order: (order.state, {}),
    )


def check_same(state: State, like: State) -> None:
    """Raise RoundFailed where two ways did not do the same work."""
    for name, tensor in like.items():
        if not torch.allclose(state[name], tensor, rtol=1e-4, atol=1e-5):
            raise RoundFailed(f"The peers' job ended with other numbers in {name}: its times cannot be compared.")


def least_round(marks: Marks) -> float:
    """Process seconds of the quickest round after the first one."""
    return min(b - a for a, b in list(pairwise(marks))[1:])


def ratios(
    job: Job, files: dict[str, Path], ours: Callable[[Job], tuple[State, Marks]], *, repeats: int
) -> dict[str, list[float]]:
    """Ours and stock Flower over the plain loop, a round each, once a repeat, in turns."""
    found: dict[str, list[float]] = {"ours": [], "stock_flower": []}
    for _ in range(repeats):
        like, marks = plain(job)
        base = least_round(marks)
        for name, way in (("ours", ours), ("stock_flower", lambda job: stock_flower(job, files))):
            state, taken = way(job)
            check_same(state, like)
            found[name].append(least_round(taken) / base)
    return found
