"""What secure sums cost: ``python -m simulations bench masking`` times a round of seven centers beside the plain mean.

All five phases are those of a run, without messages: keys, shares, masks, signatures, shares of the masks. One or none
of seven drops out after sharing its secrets, which costs the server a mask for each survivor. Milliseconds of
processor time, the least of several repetitions, on one thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from cryptography.hazmat.primitives.asymmetric import ec
from rich.table import Table

from common.files import write_json
from common.privacy.masking.center import MaskingCenter, Vectors
from common.privacy.masking.keys import Context
from common.privacy.masking.numbers import Form
from common.privacy.masking.server import unmasked
from common.protocol.masked import UPDATE, Layout, layout_of, numbers_of, update_in
from common.protocol.messages import State
from server.aggregation.mean import Update, mean
from simulations.benchmarks.rounds import lora_shapes

SEVEN = tuple(f"H{number}" for number in range(7))
REPEATS = 7
SIZES = {"0.3 M parameters (LoRA, 1.2 MB)": None, "5 MB": (1_310_720,)}


@dataclass(frozen=True)
class Cost:
    """Milliseconds of a round.

    Args:
        center: of one center, all phases together.
        server: taking the masks off a sum of seven.
        dropped: the same where one of seven drops out.
        plain: the mean of the seven updates, as it is without masks.
        bytes_up: of one center's answers, all phases together.
    """

    update: str
    center: float
    server: float
    dropped: float
    plain: float
    bytes_up: int


def bench_masking(out: Path, *, repeats: int = REPEATS) -> list[Cost]:
    """The figures, also written as JSON."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = [_cost(name, _state(shape), repeats) for name, shape in SIZES.items()]
    finally:
        torch.set_num_threads(threads)
    write_json(out, [asdict(cost) for cost in found])
    return found


def masking_table(found: list[Cost]) -> Table:
    """For the terminal."""
    table = Table("update", "a center ms", "server ms", "one dropped ms", "plain mean ms", "a center's bytes")
    for cost in found:
        figures = (cost.center, cost.server, cost.dropped, cost.plain)
        table.add_row(cost.update, *(f"{value:.1f}" for value in figures), f"{cost.bytes_up:,}")
    return table


def _state(shape: tuple[int, ...] | None) -> State:
    generator = torch.Generator().manual_seed(0)
    shapes = lora_shapes() if shape is None else {"part/w": shape}
    return {name: torch.randn(own, generator=generator) * 0.01 for name, own in shapes.items()}


def _cost(name: str, start: State, repeats: int) -> Cost:
    layout, form = layout_of(start, {}), Form(1.0, 1.0, len(SEVEN))
    states = {code: {n: t + 0.001 * (place + 1) for n, t in start.items()} for place, code in enumerate(SEVEN)}
    updates = [Update(code, states[code], 1.0) for code in SEVEN]
    rounds = [_round(layout, form, states, start, drops=0) for _ in range(repeats)]
    dropped = [_round(layout, form, states, start, drops=1) for _ in range(repeats)]
    return Cost(
        name,
        center=min(one.center for one in rounds),
        server=min(one.server for one in rounds),
        dropped=min(one.server for one in dropped),
        plain=min(_timed(lambda: mean(updates, start=start))[1] for _ in range(repeats)),
        bytes_up=rounds[0].bytes_up,
    )


@dataclass
class _Round:
    center: float
    server: float
    bytes_up: int


def _round(layout: Layout, form: Form, states: dict[str, State], start: State, *, drops: int) -> _Round:
    """A whole round; a center's time is the mean over those that stay."""
    identities = {code: ec.generate_private_key(ec.SECP384R1()) for code in SEVEN}
    known = {code: key.public_key() for code, key in identities.items()}
    context, stay = Context("run", "step", 1, "0" * 64, SEVEN), SEVEN[drops:]
    spent = 0.0

    def timed(work: Callable[[], Any]) -> Any:
        nonlocal spent
        found, took = _timed(work)
        spent += took
        return found

    centers = {code: timed(partial(MaskingCenter, code, context, identities[code], known)) for code in SEVEN}
    adverts = {code: timed(centers[code].advertise) for code in SEVEN}
    sealed = {code: timed(partial(centers[code].share, adverts)) for code in SEVEN}
    masked: dict[str, Vectors] = {}
    carried: dict[str, bytes] = {}
    for code in stay:
        make = partial(numbers_of, layout, form, state=states[code], start=start, weight=1.0, sums={})
        numbers, parts = timed(make)
        masked[code], carried[code] = timed(partial(centers[code].mask, numbers, SEVEN, parts))
    received = {code: {other: own[code] for other, own in sealed.items() if other != code} for code in stay}
    signed = {code: timed(partial(centers[code].agree, carried, received[code])) for code in stay}
    revealed = {code: timed(partial(centers[code].reveal, signed)) for code in stay}
    total, server = _timed(lambda: unmasked(context, adverts, sealed, masked, revealed))
    state, _ = update_in(layout, form, total[UPDATE], start, layout.parts)
    expected = mean([Update(code, states[code], 1.0) for code in stay], start=start)
    apart = sum(float((state[n] - expected[n]).double().square().sum()) for n in start) ** 0.5
    moved = sum(float((expected[n] - start[n]).double().square().sum()) for n in start) ** 0.5
    assert apart < 1e-4 * moved, "a secure sum is the plain one before its time is believed"
    small = sum(len(text) for text in sealed[stay[0]].values()) + len(carried[stay[0]]) + len(signed[stay[0]])
    bytes_up = masked[stay[0]][UPDATE].nbytes + small + 4 * 32 + len(adverts[stay[0]].signature) + 67 * len(SEVEN)
    return _Round(spent / len(stay), server, bytes_up)


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    started = time.process_time()
    found = work()
    return found, 1000 * (time.process_time() - started)
