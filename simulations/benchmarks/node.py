"""What a message's process costs beside its training, and what workers share: ``python -m simulations bench node``.

A training message is answered in two kinds of process, in turns: forks of one that has the imports only, and forks of
a warm parent. Processor time is the process's own, without its training's; the updates must have the same bits. Memory
is what the kernel counts of private and shared pages together (PSS), of workers and of what they are forked from.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil
from flwr.app import Context, Message, RecordDict
from flwr.common.serde import context_to_proto, message_to_proto
from rich.table import Table

from client.center.wanted import Wanted
from client.node.executor import PRELOAD, answered_by, load_wanted
from common.config.load import to_json
from common.files import write_json
from common.protocol.messages import Order
from common.protocol.packing import pack
from common.protocol.wire import pack_order
from common.runtime.executor import processes
from common.runtime.machine import environment
from common.runtime.warm import ONE_THREAD, WarmContext, start_warm
from server.centers.federation import Federation
from simulations.benchmarks.rounds import Bench, Setting
from simulations.virtual.local_grid import LocalGrid
from simulations.virtual.workers import PRELOAD as OF_WORKERS

AIM_MS, AIM_MEMORY = 25.0, 1.75


@dataclass
class NodeSetting:
    """What is benchmarked: one message of a step, and workers that have each answered one."""

    step: str = "relapse"
    repeats: int = 5
    workers: int = 7
    backbone: str = "random"
    scale: float = 0.08  # of the phantom cohort


@dataclass(frozen=True)
class Answered:
    """One message's process: its processor time beside training, its training's, and a digest of what it answered."""

    beside_ms: float
    training_ms: float
    digest: str


def bench_node(out: Path, *, setting: NodeSetting | None = None, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Measure both, write them to ``out`` as JSON and return them."""
    setting = setting or NodeSetting()
    os.environ.update(dict.fromkeys(ONE_THREAD, "1"))
    processes().set_forkserver_preload([*PRELOAD, *OF_WORKERS])
    with tempfile.TemporaryDirectory(prefix="fedgraft-bench-") as place:
        say("bench node: making a synthetic cohort")
        given = Setting(steps=(setting.step,), backbone=setting.backbone, scale=setting.scale)
        prepared = Bench.prepare(Path(place), given)
        found = {
            "protocol": "one thread, processor time of the message's own process, sides in turns, least of the repeats",
            "setting": asdict(setting),
            "environment": environment("cpu", 1),
            "message": message_cost(prepared, setting, say=say),
            "memory": workers_memory(prepared, setting, say=say),
        }
    write_json(out, found)
    return found


def message_cost(bench: Bench, setting: NodeSetting, *, say: Callable[[str], None]) -> dict[str, Any]:
    """Milliseconds of a training message's process beside training: a fork with the imports, one of a warm parent."""
    code = min(bench.files)
    order, center = replace(bench.order(setting.step, center=code), round=1), bench.files[code]
    _, wanted = _answer(processes(), center, order)
    parent = start_warm(processes(), load_wanted, wanted)
    try:
        while (problem := parent.problem(wait_s=0.1)) is None:
            pass
        if problem:
            raise RuntimeError(f"The warm parent serves nobody: {problem}")
        contexts = {"imports": processes(), "warm": WarmContext(parent.place)}
        sides: dict[str, list[Answered]] = {name: [] for name in contexts}
        for _ in range(setting.repeats):
            for name, context in contexts.items():
                sides[name].append(_answer(context, center, order)[0])
    finally:
        parent.end()
    if len({each.digest for side in sides.values() for each in side}) != 1:
        raise AssertionError("The two kinds of process answered with different bits.")
    cold, warm = (min(each.beside_ms for each in sides[name]) for name in contexts)
    say(f"bench node: {cold:.0f} ms beside training with the imports, {warm:.0f} ms from a warm parent")
    every = {name: [asdict(each) for each in side] for name, side in sides.items()}
    return {"imports_ms": cold, "warm_ms": warm, "ratio": warm / cold, "aim_ms": AIM_MS, "all": every}


def workers_memory(bench: Bench, setting: NodeSetting, *, say: Callable[[str], None]) -> dict[str, Any]:
    """Bytes of workers that have each trained once, with what they are forked from: many against one."""
    codes = sorted(bench.files)[: setting.workers]
    held = {count: _held(bench, setting, codes[:count]) for count in (1, len(codes))}
    ratio = held[len(codes)] / held[1]
    say(f"bench node: {len(codes)} workers hold {ratio:.2f} times the memory of one")
    return {"bytes": {str(count): each for count, each in held.items()}, "ratio": ratio, "aim": AIM_MEMORY}


def node_table(found: Mapping[str, Any]) -> Table:
    """Both figures, for a terminal."""
    table = Table(title="A message's process, and workers")
    for column in ("what", "measured", "aim"):
        table.add_column(column)
    message, memory = found["message"], found["memory"]
    table.add_row("processor time beside training, imports only", f"{message['imports_ms']:.0f} ms", "")
    warm = f"{message['warm_ms']:.0f} ms ({message['ratio']:.2f})"
    table.add_row("the same, from a warm parent", warm, f"<= {AIM_MS:.0f} ms")
    workers = max(map(int, memory["bytes"]))
    table.add_row(f"memory of {workers} workers against one", f"{memory['ratio']:.2f}", f"<= {AIM_MEMORY}")
    return table


def _answer(context: Any, center: Path, order: Order) -> tuple[Answered, Wanted]:
    """What a process of this context says of one training message."""
    LocalGrid({}, workers=0).close()  # messages are made in the name of a run
    message = Message(pack(pack_order(order)), dst_node_id=1, message_type="train")
    config: dict[str, bool | float | int | str] = {"center": str(center), "code": center.stem}
    given = Context(run_id=1, node_id=1, node_config=config, state=RecordDict(), run_config={})
    sent = message_to_proto(message).SerializeToString(), context_to_proto(given).SerializeToString()
    ours, theirs = multiprocessing.Pipe()
    process = context.Process(target=_train, args=(theirs, *sent))
    process.start()
    theirs.close()
    found: tuple[Answered, Wanted] = ours.recv()
    process.join()
    return found


def _train(connection: Connection, message: bytes, context: bytes) -> None:
    """In a message's process: answer as the node's does, and tell training's time from the rest."""
    from client.app import app
    from client.center import center as verbs
    from client.center.warmth import wanted
    from common.backbones.base import tensors_digest
    from common.protocol.packing import unpack
    from common.protocol.wire import unpack_reply

    LocalGrid({}, workers=0).close()
    spent, fit = [0.0], verbs.fit

    def timed(job: Any) -> Any:
        began = time.process_time()
        try:
            return fit(job)
        finally:
            spent[0] += time.process_time() - began

    verbs.fit = timed
    reply = answered_by(app, message, context)
    message_to_proto(reply).SerializeToString()
    beside = time.process_time() - spent[0]
    state = unpack_reply(unpack(reply.content)).state
    found = wanted(seconds=600.0, most_bytes=int(psutil.virtual_memory().total))
    connection.send((Answered(1e3 * beside, 1e3 * spent[0], tensors_digest(state)), found))
    connection.close()


def _held(bench: Bench, setting: NodeSetting, codes: list[str]) -> int:
    """PSS of a grid's workers and of what they are forked from, after each has trained."""
    step = bench.run.steps[setting.step]
    order = replace(bench.order(setting.step), step=replace(step, centers=codes, evaluate_at=codes), round=1)
    grid = LocalGrid({c: bench.files[c] for c in codes}, workers=len(codes), frozen=[to_json(bench.run.backbone)])
    try:
        federation = Federation(grid)
        federation.discover(order, at_least=len(codes))
        trained = federation.ask(codes, order, "train")
        if sorted(trained.usable) != codes:
            raise RuntimeError(f"Only {sorted(trained.usable)} of {codes} trained.")
        children = psutil.Process().children(recursive=True)
        return sum(int(child.memory_full_info().pss) for child in children)
    finally:
        grid.close()
