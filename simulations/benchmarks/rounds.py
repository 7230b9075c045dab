"""What the federation costs beside training, on this machine: ``python -m simulations bench``.

Three figures: the round's overhead beyond training (ms), federated / centralized process time on the same samples in
the same number of steps, and what keeping frozen features saves. Protocol: one thread, process time, the two sides
taken in turns, the least of several repeats with the spread beside it, equal results asserted before a time is
believed. Synthetic data, all in a temporary folder.
"""

from __future__ import annotations

import gc
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from rich.table import Table

from client.app import Verbs
from client.center.center import Center
from client.training.job import prepare
from client.training.loop import fit
from common.adapters.lowrank import A, B
from common.backbones import backbone_digest, load_backbone
from common.backbones.base import tensors_digest
from common.config.load import compose_run
from common.config.run import Run
from common.config.step import Step
from common.errors import RoundFailed
from common.files import write_json
from common.model.adapted import AdaptedModel
from common.protocol.declaration import sent_back
from common.protocol.messages import Order, Reply, State
from common.protocol.wire import declared_sums
from common.runtime.machine import environment
from common.store.ledger import Ledger
from common.tasks import build_task
from server.centers.enrolment import enrol
from server.centers.federation import Federation
from server.learning.rounds import run_rounds
from server.learning.strategy import AdapterStrategy
from server.run.folder import RunFolder
from server.run.narration import Narrator
from simulations.comparison.baselines import Trained, baseline_order, pooled, train_pooled
from simulations.virtual.centers import data_roots, write_centers
from simulations.virtual.local_grid import LocalGrid

AIM_RATIO = 1.05
AIM_OVERHEAD_MS = {"lora": 5.0, "decoder": 50.0}


@dataclass
class Setting:
    """What is benchmarked. Steps come from the curriculum, with one case a batch, so that both sides take the same
    number of steps."""

    curriculum: str = "quickstart"
    backbone: str = "random"  # times do not depend on what the weights learned
    scale: float = 0.08  # of the phantom cohort
    steps: tuple[str, ...] = ("relapse", "tumour_ct")
    cached_step: str = "tumour_ct"  # a decoder on frozen features
    repeats: int = 5
    overhead_rounds: int = 8
    cached_cases: int = 8


@dataclass
class Spread:
    """A ratio of two process times that were taken in turns."""

    a_seconds: list[float]
    b_seconds: list[float]

    @property
    def ratio(self) -> float:
        """Least over least: what is left when nothing disturbs."""
        return min(self.a_seconds) / min(self.b_seconds)

    @property
    def range(self) -> tuple[float, float]:
        """The smallest and the largest ratio of neighbors in time."""
        ratios = [a / b for a, b in zip(self.a_seconds, self.b_seconds, strict=True)]
        return min(ratios), max(ratios)

    def as_json(self) -> dict[str, Any]:
        """Everything that was measured."""
        return {**asdict(self), "ratio": self.ratio, "ratio_range": list(self.range)}


@dataclass
class Bench:
    """One cohort, one frozen model and the centers, ready to be timed."""

    run: Run
    place: Path
    setting: Setting
    files: dict[str, Path]
    base: str
    starts: dict[str, State]

    @classmethod
    def prepare(cls, place: Path, setting: Setting) -> Bench:
        """Make the cohort and load the frozen model."""
        run = compose_run(_overrides(place, setting))
        folder = RunFolder(place / "centers")
        files, _ = write_centers(run, folder, data_roots(run)[:1])  # the chest center trains nothing
        files = {code: _with_cache(path, place) for code, path in files.items()}
        backbone = load_backbone(run.backbone)
        starts = {name: AdaptedModel(backbone, run.steps[name], seed=run.seed).state() for name in _names(setting)}
        return cls(run, place, setting, files, backbone_digest(backbone), starts)

    def order(self, name: str, *, center: str | None = None) -> Order:
        """A step's first order, for all centers or for one."""
        step = self.run.steps[name]
        if center is not None:
            step = replace(step, centers=[center], evaluate_at=[center])
        return baseline_order(self.run, step, base=self.base, state=self.starts[name])

    def folder(self) -> RunFolder:
        """A new, empty run folder."""
        runs = self.place / "runs"
        runs.mkdir(exist_ok=True)
        return RunFolder(Path(tempfile.mkdtemp(dir=runs)))


def bench(out: Path, *, setting: Setting | None = None, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Measure everything, write it to ``out`` as JSON and return it."""
    setting = setting or Setting()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="fedgraft-bench-") as place:
        say("bench: making a synthetic cohort")
        prepared = Bench.prepare(Path(place), setting)
        overhead = {name: round_overhead(prepared, shapes(), say=say) for name, shapes in ADAPTERS.items()}
        ratios = {name: federated_to_centralized(prepared, name, say=say) for name in setting.steps}
        cache = cached_to_uncached(prepared, setting.cached_step, say=say)
    found = {
        "protocol": "one thread, process time, sides in turns, least of the repeats, equal results asserted first",
        "setting": asdict(setting),
        "environment": environment("cpu", 1),
        "centers": len(prepared.files),
        "round_overhead": overhead,
        "federated_to_centralized": ratios,
        "cached_features": cache,
    }
    write_json(out, found)
    return found


# -------------------------------------------------------------------------------------------------- a round's overhead


Shapes = dict[str, tuple[int, ...]]


def lora_shapes() -> Shapes:
    """Rank 8 on the qkv of a ViT-B's twelve blocks: 294,912 parameters."""
    shapes = {A: (8, 768), B: (2304, 8)}
    return {f"within/blocks.{i}.qkv.{factor}": shape for i in range(12) for factor, shape in shapes.items()}


def decoder_shapes() -> Shapes:
    """UNETR's convolutions for a ViT-B at 96 voxels: 4,443,123 parameters."""
    from monai.networks.nets import UNETR

    with torch.device("meta"):
        network = UNETR(in_channels=1, out_channels=3, img_size=(96, 96, 96), feature_size=16)
    named = network.named_parameters()
    return {f"decoder/{name}": tuple(p.shape) for name, p in named if not name.startswith("vit.")}


ADAPTERS: dict[str, Callable[[], Shapes]] = {"lora": lora_shapes, "decoder": decoder_shapes}


def round_overhead(prepared: Bench, shapes: Shapes, *, say: Callable[[str], None]) -> dict[str, Any]:
    """Milliseconds a round over `LocalGrid` with centers that hand back what they get.

    Counted: messages both ways to every center for training and for validation, as bytes; reading the center's file;
    screening; the mean; checkpoint; ledger. Not counted: anything that a center does with data or model.
    """
    busy, wall, folder = measured_rounds(prepared, shapes)
    phases = [event["seconds"] for event in Ledger(folder.ledger).events("round_finished")[1:]]
    parameters = sum(map(math.prod, shapes.values()))
    found = {
        "parameters": parameters,
        "rounds": len(busy),
        "process_ms": _summary(busy),
        "wall_ms": _summary(wall),
        "of_which_wall_ms": {
            phase: 1e3 * statistics.median(row[phase] for row in phases) for phase in ("train", "aggregate", "validate")
        },
    }
    say(f"bench: {parameters:,} parameters: {statistics.median(busy):.1f} ms a round beyond training")
    return found


def measured_rounds(
    prepared: Bench, shapes: Shapes, *, by_hand: bool = True, verbs: Verbs | None = None
) -> tuple[list[float], list[float], RunFolder]:
    """Milliseconds of each round but the first, of processor time and of the clock, and the run's folder.

    Args:
        by_hand: orders and replies are handed over; else each is a message of bytes.
        verbs: what the centers do; absent: they hand back what they get.
    """
    rng = np.random.default_rng(0)
    state = {name: torch.from_numpy(rng.normal(0, 0.02, shape).astype(np.float32)) for name, shape in shapes.items()}
    order = replace(prepared.order(prepared.setting.steps[0]), state=state)
    order.step = replace(order.step, rounds=prepared.setting.overhead_rounds + 1)  # the first one warms up
    marks: list[tuple[float, float]] = []
    folder = prepared.folder()
    federation_of(
        prepared,
        order,
        folder,
        after_round=lambda: marks.append((time.perf_counter(), time.process_time())),
        verbs=verbs or IDLE,
        by_hand=by_hand,
    )()
    wall, busy = ([1e3 * (b - a) for a, b in pairwise(times)] for times in zip(*marks, strict=True))
    return busy, wall, folder


def _summary(values: Sequence[float]) -> dict[str, float]:
    return {"least": min(values), "median": statistics.median(values), "most": max(values)}


def _answered(center: Center, order: Order, *, state: State) -> Reply:
    shapes = declared_sums(build_task(order.step.task), curves=False)
    sums = {name: np.zeros(shape) for name, shape in shapes.items()} | {"fit.cases": np.ones(())}
    counts = {"cases": 1, "batches": 1} if state else {"cases": 1}
    return Reply(center.code, state=state, sums=sums, counts=counts)


def _leaving(order: Order) -> State:
    return {name: order.state[name] for name in sent_back(order.state, order.step, round=order.round)}


IDLE = Verbs(  # centers that answer at once: the state that they were sent, and zeros for every declared sum
    train=lambda center, order: _answered(center, order, state=_leaving(order)),
    evaluate=lambda center, order: _answered(center, order, state={}),
    declared=lambda center, order: (_leaving(order), {}),
)


# ------------------------------------------------------------------------------------------- federated / centralized


def federated_to_centralized(prepared: Bench, name: str, *, say: Callable[[str], None]) -> dict[str, Any]:
    """Process time of a round over LocalGrid against a pass over the same cases in one place, validation included.

    First, the two are shown to be the same work: for one center they must end with the same bits after two rounds,
    and for all centers take the same number of steps.
    """
    _assert_identical(prepared, name)
    order = prepared.order(name)
    together = pooled([Center.open(prepared.files[code]) for code in sorted(prepared.files)])
    spread, batches = Spread([], []), 0
    for repeat in range(-1, prepared.setting.repeats):  # the first fills the caches of both sides
        folder = prepared.folder()
        _, a_seconds = _timed(federation_of(prepared, order, folder))
        central, b_seconds = _timed(lambda: train_pooled(together, order, reset_per_round=True))
        batches = _check_equal_work(Ledger(folder.ledger), central, order.step)
        if repeat >= 0:
            spread.a_seconds.append(a_seconds)
            spread.b_seconds.append(b_seconds)
    extra = (min(spread.a_seconds) - min(spread.b_seconds)) / len(prepared.files)
    low, high = spread.range
    say(f"bench: {name}: federated / centralized {spread.ratio:.3f} ({low:.3f} to {high:.3f}), {batches} steps")
    return {**spread.as_json(), "steps": batches, "extra_ms_per_center": 1e3 * extra, "aim": AIM_RATIO}


def _assert_identical(prepared: Bench, name: str) -> None:
    """The biggest center, federated alone and trained by itself."""
    biggest = max(sorted(prepared.files), key=lambda code: len(Center.open(prepared.files[code]).cases))
    order = prepared.order(name, center=biggest)
    order.step = replace(order.step, rounds=2)
    federated = federation_of(prepared, order, prepared.folder())()
    alone = train_pooled(pooled([Center.open(prepared.files[biggest])]), order, reset_per_round=True)
    if tensors_digest(federated) != tensors_digest(alone.state):
        raise RoundFailed("One center federated and the same center alone differ: their times cannot be compared.")


def _check_equal_work(ledger: Ledger, central: Trained, step: Step) -> int:
    rows = [row for event in ledger.events("round_finished", step=step.name) for row in event["train"].values()]
    batches = sum(row["steps"] for row in rows)
    if batches != central.batches:
        raise RoundFailed(f"Unequal work: {batches} federated and {central.batches} centralized steps; use batch: 1.")
    return batches


# ----------------------------------------------------------------------------------------------------- kept features


def cached_to_uncached(prepared: Bench, name: str, *, say: Callable[[str], None]) -> dict[str, Any]:
    """A pass over the training cases with features computed in every step against features kept from before."""
    order = prepared.order(name)
    center = pooled([Center.open(prepared.files[code]) for code in sorted(prepared.files)])
    model, task = center.model(order)
    cases = center.case_set(order, "train", model)
    batches = [cases.collate([i]) for i in range(min(len(cases), prepared.setting.cached_cases))]
    with torch.no_grad():
        features, encoding = _timed(lambda: [model.encode(batch.inputs, batch.present) for batch in batches])

    def one_pass(kept: Sequence[Any]) -> float:
        model.load(order.state)
        job = prepare(order, model, task, cases, code=center.code)
        return fit(replace(job, batches=list(zip(batches, kept, strict=True)))).loss

    spread = Spread([], [])
    for repeat in range(-1, prepared.setting.repeats):
        without, a_seconds = _timed(lambda: one_pass([None] * len(batches)))
        with_kept, b_seconds = _timed(lambda: one_pass(features))
        if abs(without - with_kept) > 1e-6 * max(abs(without), 1.0):
            raise RoundFailed(f"Kept features changed the loss from {without} to {with_kept}: nothing to compare.")
        if repeat >= 0:
            spread.a_seconds.append(a_seconds)
            spread.b_seconds.append(b_seconds)
    possible = min(spread.a_seconds) / max(min(spread.a_seconds) - encoding, 1e-9)
    say(f"bench: {name}: kept features make a decoder's pass {spread.ratio:.2f} times as fast")
    return {
        **spread.as_json(),
        "step": name,
        "cases": len(batches),
        "encoding_seconds": encoding,
        "if_encoding_were_free": possible,
    }


# ------------------------------------------------------------------------------------------------------------- shared


def federation_of(
    prepared: Bench,
    order: Order,
    folder: RunFolder,
    *,
    after_round: Callable[[], None] = lambda: None,
    verbs: Verbs | None = None,
    by_hand: bool = True,
) -> Callable[[], State]:
    """A step's rounds over an in-process LocalGrid, enrolled and ready to run; called, the state that they keep."""
    wanted = order.step.centers
    grid = LocalGrid(
        {c: file for c, file in prepared.files.items() if c in wanted or "*" in wanted},
        workers=0,
        verbs=verbs,
        by_hand=by_hand,
        journal=folder.path / "sent.journal",
    )
    federation = Federation(grid)
    enrolment = enrol(federation, replace(order, state=prepared.starts[order.step.name]))
    task = build_task(order.step.task)
    strategy = AdapterStrategy(
        order,
        nodes={center: federation.nodes[center] for center in enrolment.training},
        cases={center: enrolment.counts[center]["train"] for center in enrolment.training},
        task=task,
    )
    narrator, ledger = _Silent(after_round), Ledger(folder.ledger)
    return lambda: run_rounds(federation, strategy, task, folder=folder, ledger=ledger, narrator=narrator)[0]


class _Silent(Narrator):
    """Says nothing, and lets a clock look on after each round."""

    def __init__(self, after_round: Callable[[], None]):
        super().__init__(None, say=lambda line: None)
        self._after_round = after_round

    def round_finished(self, event: dict[str, Any], *, of: int) -> None:
        self._after_round()


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What it returned, and the seconds of process time that it took."""
    gc.collect()
    started = time.process_time()
    found = work()
    return found, time.process_time() - started


def _with_cache(path: Path, place: Path) -> Path:
    """The center's file with its cache in the bench's own place."""
    config = OmegaConf.load(path)
    config.cache = str(place / "cache")
    OmegaConf.save(config, path)
    return path


def _names(setting: Setting) -> list[str]:
    return sorted({*setting.steps, setting.cached_step})


def _overrides(place: Path, setting: Setting) -> list[str]:
    steps = [
        f"{path}={value}"
        for name in _names(setting)
        for path, value in (
            (f"steps.{name}.rounds", 1),
            (f"steps.{name}.training.batch", 1),
            (f"steps.{name}.training.epochs", 1),
            (f"steps.{name}.centers", "['*']"),
            (f"steps.{name}.evaluate_at", "['*']"),
        )
    ]
    data = [f"data.root={place / 'cohort'}", f"data.scale={setting.scale}", "data.split.folds=3"]
    return [f"curriculum={setting.curriculum}", f"backbone={setting.backbone}", "name=bench", *data, *steps]


def bench_tables(found: dict[str, Any]) -> list[Table]:
    """What was found, as tables."""
    return [_overhead_table(found), _ratio_table(found)]


def _overhead_table(found: dict[str, Any]) -> Table:
    table = Table(title=f"One round beyond training, {found['centers']} centers, LocalGrid, milliseconds")
    for column in ("Adapter", "Process time", "Wall time", "Train", "Aggregate", "Validate", "Aim"):
        table.add_column(column, justify="left" if column == "Adapter" else "right")
    for name, row in found["round_overhead"].items():
        phases = [f"{row['of_which_wall_ms'][phase]:.1f}" for phase in ("train", "aggregate", "validate")]
        process, wall = (
            f"{row[kind]['median']:.1f} ({row[kind]['least']:.1f} to {row[kind]['most']:.1f})"
            for kind in ("process_ms", "wall_ms")
        )
        table.add_row(f"{row['parameters']:,}", process, wall, *phases, f"{AIM_OVERHEAD_MS[name]:.0f}")
    return table


def _ratio_table(found: dict[str, Any]) -> Table:
    table = Table(title="Process time, one thread, least of the repeats")
    for column in ("What", "Step", "Ratio", "Neighbors in time", "Aim"):
        table.add_column(column, justify="left" if column in ("What", "Step") else "right")
    for step, row in found["federated_to_centralized"].items():
        low, high = row["ratio_range"]
        what = f"federated / centralized, {row['steps']} steps"
        table.add_row(what, step, f"{row['ratio']:.3f}", f"{low:.3f} to {high:.3f}", f"≤ {row['aim']}")
    row = found["cached_features"]
    low, high = row["ratio_range"]
    aim = f"{row['if_encoding_were_free']:.2f} possible"
    table.add_row("uncached / cached features", row["step"], f"{row['ratio']:.2f}", f"{low:.2f} to {high:.2f}", aim)
    return table
