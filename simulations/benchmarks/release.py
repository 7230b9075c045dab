"""What gate and screen cost: ``python -m simulations bench release`` times both for one reply of each kind.

The update is a LoRA adapter of 0.3 million parameters; scores are those of a test split with curves, merged at a
minimum of 5. The screen looks once at every number for finiteness, and the guards once for the norm: that pass is
timed apart, because it is the work itself. Milliseconds are the least of many repetitions, on one thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table

from client.privacy.release import Minimum, released
from client.privacy.sums import with_fit
from common.config.task import ClassificationTask, PrognosisTask
from common.files import write_json
from common.protocol.messages import Reply, Sums
from common.protocol.wire import FIT_SUMS, declared_sums
from common.tasks import Task, build_task
from server.centers.screening import Expected, expected_of_task, screen
from simulations.benchmarks.rounds import lora_shapes

REPEATS = 300
MINIMUM = Minimum(cases=5, cell=5)
CASES = 40


@dataclass(frozen=True)
class Cost:
    """Milliseconds of one reply.

    Args:
        gate: at the center.
        screen: at the server, the pass over the numbers included.
        passes: that pass alone: finiteness and norm.
    """

    reply: str
    gate: float
    screen: float
    passes: float

    @property
    def beyond(self) -> float:
        """Gate and screen beyond the pass."""
        return self.gate + max(self.screen - self.passes, 0.0)


def bench_release(out: Path, *, repeats: int = REPEATS) -> list[Cost]:
    """The figures, also written as JSON."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = [_update(repeats), *(_scores(name, task, repeats) for name, task in _tasks().items())]
    finally:
        torch.set_num_threads(threads)
    write_json(out, [asdict(cost) | {"beyond": cost.beyond} for cost in found])
    return found


def release_table(found: list[Cost]) -> Table:
    """For the terminal."""
    table = Table("reply", "gate ms", "screen ms", "of it finiteness ms", "beyond that ms")
    for cost in found:
        table.add_row(cost.reply, *(f"{value:.3f}" for value in (cost.gate, cost.screen, cost.passes, cost.beyond)))
    return table


def _update(repeats: int) -> Cost:
    generator = torch.Generator().manual_seed(0)
    state = {name: torch.randn(shape, generator=generator) for name, shape in lora_shapes().items()}
    sums = {name: np.array(float(CASES)) for name in FIT_SUMS}
    reply = Reply("A", state=state, sums=sums, counts={"cases": CASES, "batches": 5, "skipped": 0})
    expected = Expected(dict.fromkeys(FIT_SUMS, ()), state=state, cases=CASES)
    parameters = sum(tensor.numel() for tensor in state.values())
    return Cost(
        f"update, {parameters / 1e6:.1f} M parameters",
        _least(lambda: released(reply, minimum=MINIMUM), repeats),
        _least(lambda: screen(reply, expected), repeats),
        _least(lambda: [torch.isfinite(tensor).all() for tensor in state.values()], repeats),
    )


def _scores(name: str, made: tuple[Task, list[dict[str, np.ndarray]]], repeats: int) -> Cost:
    task, observed = made
    sums: Sums = with_fit({**task.sums(observed), **task.curve_sums(observed, 0.5)}, [1.0] * CASES)
    reply = Reply("A", sums=sums, counts={"cases": CASES, "skipped": 0})
    expected = expected_of_task(task, declared_sums(task, curves=True), cases=CASES)
    return Cost(
        f"scores and curves, {name}",
        _least(lambda: released(reply, minimum=MINIMUM, cells=task.cells), repeats),
        _least(lambda: screen(reply, expected), repeats),
        _least(lambda: [np.isfinite(value).all() for value in sums.values()], repeats),
    )


def _tasks() -> dict[str, tuple[Task, list[dict[str, np.ndarray]]]]:
    rng = np.random.default_rng(0)
    prognosis = build_task(PrognosisTask(bins=12))
    times, events = rng.uniform(0, 2000, CASES), rng.integers(0, 2, CASES)
    survived: list[dict[str, np.ndarray]] = [
        {
            "time": np.array(t),
            "event": np.array(float(e)),
            "risk": np.array(rng.random()),
            "survival": -np.sort(-rng.random(12)),
        }
        for t, e in zip(times, events, strict=True)
    ]
    binary = build_task(ClassificationTask(target="hpv", classes=["hpv"]))
    scored = [{"score": rng.normal(size=1), "label": rng.integers(0, 2, 1).astype(float)} for _ in range(CASES)]
    return {"prognosis": (prognosis, survived), "binary": (binary, scored)}


def _least(work: Callable[[], Any], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return 1000 * min(times)
