"""What must not slip: processor time around training as ratios to baselines that are measured in the same run.

`python -m simulations bench` prints them. With ``--check`` their medians are compared with ``ratios.json`` beside this
file: a ratio above the committed one by more than its margin is named, and the command ends with 2. Absolute
times differ between machines, ratios of two ways of doing the same work much less.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
import torch
from omegaconf import OmegaConf
from rich.table import Table

from client.center.center import Center
from client.vault.outbox import record_reply
from common.config.run import PARTS
from common.errors import FedgraftError
from common.files import write_json
from common.protocol.handed import reply_facts
from common.protocol.messages import Order, Reply, State
from common.runtime.machine import environment
from common.store.ledger import append_unflushed
from simulations.benchmarks.peers import Job, Marks, ratios, verbs_of
from simulations.benchmarks.rounds import ADAPTERS, IDLE, Bench, Setting, federation_of, measured_rounds

COMMITTED = Path(__file__).with_name("ratios.json")


@dataclass(frozen=True)
class Size:
    """How much is measured; the smallest is for a test that the bench runs at all."""

    repeats: int = 5
    rounds: int = 4
    job: Job = field(default_factory=Job)
    many: int = 100  # centers against the phantom's seven
    lines: int = 20_000  # of an audit record against ten


SMALLEST = Size(repeats=1, rounds=2, job=Job(clients=3, rounds=3, layers=1), many=9, lines=200)
WORDS = {
    "round_lora": "a round beyond training, 0.3 M parameters: handed over / as messages",
    "round_decoder": "a round beyond training, 4.4 M parameters: handed over / as messages",
    "job_ours": "the peers' job, a round: ours / plain torch loop",
    "job_stock_flower": "the peers' job, a round: stock Flower in process / plain torch loop",
    "record": "a reply's audit record: after 20,000 lines / after 10",
    "centers": "a center in a round at the server: of 100 / of 7",
    "plan": "processor time of `plan curriculum=smoke` / of importing Hydra",
}


def bench_ratios(
    out: Path, *, setting: Setting | None = None, size: Size | None = None, say: Callable[[str], None] = print
) -> dict[str, list[float]]:
    """Measure every ratio on a synthetic cohort in a temporary folder, and write them to ``out`` as JSON."""
    torch.set_num_threads(1)
    size = size or Size()
    with tempfile.TemporaryDirectory(prefix="fedgraft-bench-") as place:
        say("bench: making a synthetic cohort")
        found = measured(Bench.prepare(Path(place), setting or Setting()), size, say=say)
    medians = {name: statistics.median(values) for name, values in found.items()}
    write_json(out, {"size": asdict(size), "environment": environment("cpu", 1), "median": medians, "ratios": found})
    return found


def measured(prepared: Bench, size: Size, *, say: Callable[[str], None]) -> dict[str, list[float]]:
    """Name -> one ratio a repeat, the two sides of each taken one after the other."""
    found: dict[str, list[float]] = {}
    for adapter, shapes in ADAPTERS.items():
        found[f"round_{adapter}"] = [_round(prepared, shapes(), size) for _ in range(size.repeats)]
    job = ratios(size.job, prepared.files, lambda job: ours(prepared, job), repeats=size.repeats)
    found |= {f"job_{name}": values for name, values in job.items()}
    found["record"] = [_record(prepared, size) for _ in range(size.repeats)]
    found["centers"] = [_centers(prepared, size) for _ in range(size.repeats)]
    found["plan"] = [_plan() for _ in range(size.repeats)]
    for name, values in found.items():
        say(f"bench: {WORDS[name]}: {statistics.median(values):.3f}")
    return found


def check(found: Mapping[str, list[float]], committed: Path = COMMITTED) -> None:
    """Raise FedgraftError with every ratio whose median is above the committed one by more than its margin."""
    limits = json.loads(committed.read_text())["ratios"]
    worse = [
        f"{WORDS[name]}: {statistics.median(values):.3f}, committed {limits[name]['ratio']} within "
        f"{100 * limits[name]['margin']:.0f} %"
        for name, values in found.items()
        if statistics.median(values) > limits[name]["ratio"] * (1 + limits[name]["margin"])
    ]
    if worse:
        raise FedgraftError(
            "Slower than committed:\n  " + "\n  ".join(worse) + "\nFind what costs it, or say in docs/LOG.md why it is "
            f"worth it and commit new ratios in {committed}."
        )


def ratio_rows(found: Mapping[str, list[float]], committed: Path = COMMITTED) -> Table:
    """The ratios as a table, with what is committed."""
    limits = json.loads(committed.read_text())["ratios"] if committed.exists() else {}
    table = Table(title="Ratios of processor time, one thread, sides in turns")
    for column in ("What", "Median", "Least to most", "Committed"):
        table.add_column(column, justify="left" if column == "What" else "right")
    for name, values in found.items():
        limit = f"{limits[name]['ratio']} + {100 * limits[name]['margin']:.0f} %" if name in limits else "-"
        table.add_row(WORDS[name], f"{statistics.median(values):.3f}", f"{min(values):.3f} to {max(values):.3f}", limit)
    return table


# ------------------------------------------------------------------------------------------------------ each ratio


def _round(prepared: Bench, shapes: Any, size: Size) -> float:
    small = replace(prepared, setting=replace(prepared.setting, overhead_rounds=size.rounds))
    handed, messages = (min(measured_rounds(small, shapes, by_hand=by_hand)[0]) for by_hand in (True, False))
    return handed / messages


def ours(prepared: Bench, job: Job) -> tuple[State, Marks]:
    """The peers' job over centers of ours: as many as it has clients, with every guard, record and checkpoint."""
    name = prepared.setting.cached_step
    codes = sorted(prepared.files)[: job.clients]
    order = replace(prepared.order(name), state=job.start())
    order.step = replace(
        order.step, rounds=job.rounds, centers=codes, evaluate_at=codes,
        federation=replace(order.step.federation, weighting="uniform"), train_parts=["decoder"],
    )  # fmt: skip
    marks = [time.process_time()]
    run = federation_of(
        prepared, order, prepared.folder(), after_round=lambda: marks.append(time.process_time()),
        verbs=verbs_of(job, codes),
    )  # fmt: skip
    marks[0] = time.process_time()
    return run(), marks


def _record(prepared: Bench, size: Size) -> float:
    """A line after many against a line after ten; the lines before are not flushed, the two that are timed are."""
    order = prepared.order(prepared.setting.steps[0])
    facts = reply_facts(Reply("A"))
    with tempfile.TemporaryDirectory(dir=prepared.place) as place:
        seconds = [_after(Path(place) / str(lines), lines, facts, order) for lines in (size.lines, 10)]
    return seconds[0] / seconds[1]


def _after(vault: Path, lines: int, facts: dict[str, Any], order: Order) -> float:
    """Processor seconds of one more line."""
    for _ in range(lines):
        append_unflushed(vault / "sent.jsonl", "reply", facts)
    return min(_timed(lambda: record_reply(vault, facts, action="train", order=order)) for _ in range(5))


def _centers(prepared: Bench, size: Size) -> float:
    """Processor time of a round a center, of many against the phantom's, which answer without looking at a case."""
    shapes, each = ADAPTERS["lora"](), []
    for count in (size.many, len(prepared.files)):
        crowd = replace(prepared, files=_crowd(prepared, count))
        crowd = replace(crowd, setting=replace(prepared.setting, overhead_rounds=size.rounds))
        each.append(min(measured_rounds(crowd, shapes, verbs=replace(IDLE, describe=_holds_four))[0]) / count)
    return each[0] / each[1]


def _crowd(prepared: Bench, count: int) -> dict[str, Path]:
    """Centers by number, each with a file and a vault of its own."""
    config = OmegaConf.load(next(iter(prepared.files.values())))
    made = {}
    for number in range(count):
        config.code = f"C{number:03d}"
        config.vault = str(prepared.place / "crowd" / str(count) / "vaults" / config.code)
        made[config.code] = prepared.place / "crowd" / str(count) / f"{config.code}.yaml"
        made[config.code].parent.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(config, made[config.code])
    return made


def _holds_four(center: Center, order: Order) -> Reply:
    return Reply(center.code, counts=dict.fromkeys(PARTS, 4))


def _plan() -> float:
    planned = _seconds([sys.executable, "-m", "simulations", "plan", "curriculum=smoke"])
    return planned / _seconds([sys.executable, "-c", "import hydra, omegaconf"])


def _seconds(command: list[str]) -> float:
    """Processor seconds of a command, with what it started."""
    before = _children()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=Path(__file__).parents[2])
    return _children() - before


def _children() -> float:
    times = psutil.Process().cpu_times()
    return float(times.children_user + times.children_system)


def _timed(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started
