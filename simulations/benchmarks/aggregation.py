"""What aggregation costs the server: ``python -m simulations bench aggregation``.

Seven updates of 5.4 MB (rank 8 on every linear layer of a ViT-B and a small fusion network), each rule by itself:
process time of one thread, rules taken in turns, the least of several repeats with the spread beside it, less the time
of copying the same updates once; and the memory that it needs beyond them. Then 1,000 updates one after another through
the rules that can take them so. Synthetic numbers, nothing on disk.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from common.adapters.lowrank import LORA_RULES, trained_tensors
from common.config.adapter import LoraPart
from common.config.compatibility import SUM_ONLY, clashes
from common.config.federation import FEDERATIONS
from common.files import write_json
from common.model.state import bytes_of
from common.protocol.messages import State
from common.runtime.machine import environment
from server.aggregation import RULES, Setting, Update, aggregate
from server.aggregation.mean import average
from server.aggregation.optimizers import adaptive, fedavgm
from server.aggregation.types import restricted

AIM_MS = 50.0
WIDTH, BLOCKS, RANK, SIDE = 768, 12, 8, 64
LINEARS = {"qkv": (3 * WIDTH, WIDTH), "proj": (WIDTH, WIDTH), "up": (4 * WIDTH, WIDTH), "down": (WIDTH, 4 * WIDTH)}
FUSION = {"fusion/0.weight": (220, WIDTH), "fusion/0.bias": (220,)}
STREAMED = {"mean": average, "fedavgm": fedavgm, "fedadam": adaptive}


@dataclass
class AggregationSetting:
    """How much is measured."""

    centers: int = 7
    repeats: int = 7
    streamed: int = 1000
    blocks: int = BLOCKS


def bench_aggregation(
    out: Path, *, setting: AggregationSetting | None = None, say: Callable[[str], None] = print
) -> dict[str, Any]:
    """Measure everything, write it to ``out`` as JSON and return it."""
    setting = setting or AggregationSetting()
    torch.set_num_threads(1)
    rows = _rules(setting, say=say)
    say(f"bench: {setting.streamed} updates one after another")
    found = {
        "protocol": "one thread, process time, rules in turns, least of the repeats, copies of all updates subtracted",
        "setting": asdict(setting),
        "environment": environment("cpu", 1),
        "megabytes": round(bytes_of(start_of("fedit", setting.blocks).values()) / 1e6, 2),
        "rules": rows,
        "streamed": {kind: _streamed(kind, setting) for kind in STREAMED},
    }
    write_json(out, found)
    return found


def start_of(rule: str, blocks: int) -> State:
    """A state of the size of what travels in full: a LoRA part with its rule's tensors, and a fusion network."""
    g = torch.Generator().manual_seed(0)
    state: State = {name: 0.02 * torch.randn(shape, generator=g) for name, shape in FUSION.items()}
    for block in range(blocks):
        for name, (d, k) in LINEARS.items():
            layer = f"within/blocks.{block}.{name}"
            state[f"{layer}.lora_A.weight"] = torch.randn((RANK, k), generator=g) / k**0.5
            state[f"{layer}.lora_B.weight"] = 0.02 * torch.randn((d, RANK), generator=g)
            if rule == "fedsb":
                state[f"{layer}.lora_M.weight"] = torch.zeros((RANK, RANK))
            if rule in ("flora", "fedex"):
                state[f"{layer}.lora_side_A"] = torch.zeros((SIDE, k))
                state[f"{layer}.lora_side_B"] = torch.zeros((d, SIDE))
    return dict(sorted(state.items()))


# ---------------------------------------------------------------------------------------------------- rule after rule


@dataclass
class Case:
    """One rule on one round's updates."""

    setting: Setting
    start: State
    updates: list[Update]
    memory: State

    def run(self) -> State:
        """One aggregation."""
        return aggregate(self.updates, self.start, self.memory, self.setting).state

    def copy(self) -> None:
        """What any rule must at least do: read every update and write one state."""
        for update in self.updates:
            for tensor in update.state.values():
                tensor.clone()


def cases_of(setting: AggregationSetting) -> dict[str, Case]:
    """Every LoRA rule under the mean; every other rule on the default's factors and on both (5.4 MB)."""
    wanted = [("mean", rule) for rule in LORA_RULES]
    wanted += [(kind, rule) for kind in sorted(RULES) if kind != "mean" for rule in ("fedit", "rolora")]
    return {f"{kind}, {rule}": _case(kind, rule, setting) for kind, rule in wanted}


def _case(kind: str, rule: str, setting: AggregationSetting) -> Case:
    federation = FEDERATIONS[kind](**({"faulty": 1} if kind == "bulyan" else {}))
    part = LoraPart(rank=RANK, alpha=2.0 * RANK, rule=rule, side_rank=SIDE)
    assert not clashes(federation, {"within": part})
    how = Setting(federation, {"within": part})
    start = start_of(rule, setting.blocks)
    names = trained_tensors(start, how.parts, round=1)
    g = torch.Generator().manual_seed(1)
    updates = []
    for i in range(setting.centers):
        state = {n: t + 0.01 * torch.randn(t.shape, generator=g) for n, t in start.items() if n in names}
        extra = {f"control/{n}": t * 0.01 for n, t in state.items()} if kind == "scaffold" else {}
        updates.append(Update(f"C{i}", state, 1.0 + i, extra))
    return Case(how, start, updates, {})


def _rules(setting: AggregationSetting, *, say: Callable[[str], None]) -> dict[str, Any]:
    cases = cases_of(setting)
    times: dict[str, list[float]] = {name: [] for name in cases}
    copies: dict[str, list[float]] = {name: [] for name in cases}
    extra: dict[str, float | None] = {}
    for name, case in cases.items():  # the first pass warms up and is not timed
        extra[name] = _peak_mb(case.run)
    for repeat in range(setting.repeats):
        say(f"bench: every rule once, {repeat + 1} of {setting.repeats}")
        for name, case in cases.items():
            copies[name].append(_ms(case.copy))
            times[name].append(_ms(case.run))
    return {
        name: {
            "sent_mb": round(bytes_of(case.updates[0].state.values()) / 1e6, 2),
            "ms": {"least": min(times[name]), "most": max(times[name])},
            "copies_ms": min(copies[name]),
            "beyond_copies_ms": min(times[name]) - min(copies[name]),
            "extra_mb": extra[name],
        }
        for name, case in cases.items()
    }


# -------------------------------------------------------------------------------------------- one update after another


def _streamed(kind: str, setting: AggregationSetting) -> dict[str, Any]:
    """Milliseconds per update beyond making it, and memory for a tenth of the updates and for all."""
    how = Setting(FEDERATIONS[kind](), {"within": LoraPart(rank=RANK, rule="rolora")})
    start = start_of("rolora", setting.blocks)
    assert kind in SUM_ONLY

    def run(count: int) -> State:
        return STREAMED[kind](_stream(start, how, count), start, {}, how).state

    def only_make(count: int) -> None:
        for _ in _stream(start, how, count):
            pass

    few, count = max(2, setting.streamed // 10), setting.streamed
    peaks = [_peak_mb(lambda n=n: run(n)) for n in (few, count)]  # type: ignore[misc]
    spent = _ms(lambda: run(count)) - _ms(lambda: only_make(count))
    return {"updates": [few, count], "extra_mb": peaks, "ms_per_update": spent / count}


def _stream(start: State, setting: Setting, count: int) -> Iterator[Update]:
    """Updates that differ, in one set of tensors that is made anew in place; a rule that kept one would see it move."""
    whole = Update("", {name: tensor.clone() for name, tensor in start.items()}, 1.0)
    held = restricted(whole, start, trained_tensors(start, setting.parts, round=setting.round)).state
    for i in range(count):
        state = {name: tensor.mul_(1.0 + 1e-4) for name, tensor in held.items()}
        yield Update(f"C{i:06}", state, 1.0 + i % 7)


# -------------------------------------------------------------------------------------------------------------- shared


def _ms(work: Callable[[], Any]) -> float:
    started = time.process_time()
    work()
    return 1e3 * (time.process_time() - started)


def _peak_mb(work: Callable[[], Any]) -> float | None:
    """Resident memory's peak while working, above what was there before; None where Linux does not tell."""
    try:
        ctypes.CDLL(None).malloc_trim(0)  # what earlier work left free would hide what this work takes
        Path("/proc/self/clear_refs").write_text("5")
        before = _status("VmHWM")
        work()
        return round((_status("VmHWM") - before) / 1e3, 1)
    except (OSError, AttributeError):
        work()
        return None


def _status(field: str) -> float:
    """A line of /proc/self/status, in kB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def aggregation_tables(found: dict[str, Any]) -> list[Table]:
    """What was found, as tables."""
    rules = Table(title=f"Aggregating {found['setting']['centers']} updates of {found['megabytes']} MB, milliseconds")
    for column in ("Rule, LoRA", "Sent, MB", "Process time", "Copies", "Beyond copies", "Extra MB", "Aim"):
        rules.add_column(column, justify="left" if column == "Rule, LoRA" else "right")
    for name, row in found["rules"].items():
        spread = f"{row['ms']['least']:.1f} to {row['ms']['most']:.1f}"
        extra = "?" if row["extra_mb"] is None else f"{row['extra_mb']:.0f}"
        beyond = f"{row['beyond_copies_ms']:.1f}"
        rules.add_row(name, f"{row['sent_mb']}", spread, f"{row['copies_ms']:.1f}", beyond, extra, f"≤ {AIM_MS:.0f}")
    few, count = next(iter(found["streamed"].values()))["updates"]
    streamed = Table(title="One update after another (rolora)")
    for column in ("Rule", "ms per update", f"Extra MB, {few} updates", f"Extra MB, {count} updates"):
        streamed.add_column(column, justify="left" if column == "Rule" else "right")
    for name, row in found["streamed"].items():
        streamed.add_row(name, f"{row['ms_per_update']:.2f}", *(f"{peak}" for peak in row["extra_mb"]))
    return [rules, streamed]
