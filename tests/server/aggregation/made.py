"""Updates of random factors, for the tests of aggregation: plain functions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from hypothesis import strategies as st
from torch import Tensor

from common.adapters.lowrank import pairs_of
from common.config.adapter import LoraPart
from common.config.federation import FEDERATIONS
from common.protocol.messages import State
from server.aggregation import Setting, Update

LAYERS = {"within/blocks.0.qkv": (7, 5), "within/blocks.1.proj": (4, 9)}  # (d, k), never square
SEEDS, COUNTS = st.integers(0, 10_000), st.integers(1, 9)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(g: torch.Generator, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=g, dtype=torch.float64).to(dtype)


def lora_part(rule: str, **options) -> LoraPart:
    return LoraPart(rank=2, alpha=3.0, rule=rule, **{"side_rank": 16, **options})


def lora_state(g: torch.Generator, spec: LoraPart, *, dtype: torch.dtype = torch.float64, rank: int = 2) -> State:
    """One part's tensors on two layers, as `common.adapters.lora` names them."""
    state: State = {}
    for layer, (d, k) in LAYERS.items():
        state[f"{layer}.lora_A.weight"] = draw(g, rank, k, dtype=dtype)
        state[f"{layer}.lora_B.weight"] = draw(g, d, rank, dtype=dtype)
        if spec.rule == "fedsb":
            state[f"{layer}.lora_M.weight"] = draw(g, rank, rank, dtype=dtype)
        if spec.dora:
            state[f"{layer}.lora_magnitude_vector.weight"] = draw(g, d, dtype=dtype).abs() + 0.5
        if spec.rule in ("flora", "fedex") or (spec.dora and not spec.rule):
            state[f"{layer}.lora_side_A"] = torch.zeros((spec.side_rank, k), dtype=dtype)
            state[f"{layer}.lora_side_B"] = torch.zeros((d, spec.side_rank), dtype=dtype)
            if spec.dora:
                state[f"{layer}.lora_side_scale"] = torch.ones(d, dtype=dtype)
    return state


def base_of(seed: int) -> State:
    g = generator(seed + 1)
    return {layer: draw(g, d, k) for layer, (d, k) in LAYERS.items()}


def weights_of(seed: int, count: int, *, zeros: bool = True) -> list[float]:
    """Unequal, some of them zero, never all."""
    g = generator(seed + 2)
    weights = (torch.rand(count, generator=g) * 10 + 0.1).tolist()
    return [0.0 if zeros and i % 4 == 3 else w for i, w in enumerate(weights)]


def setting(kind: str = "mean", *, part: LoraPart | None = None, round: int = 1, seed: int = 0, **options) -> Setting:
    parts = {} if part is None else {"within": part}
    return Setting(FEDERATIONS[kind](**options), parts, round=round, base=base_of(seed))


def updates_like(start: State, seed: int, count: int, *, names=None, drift: float = 1.0, zeros: bool = True):
    """Updates that moved from the start, those of ``names`` only."""
    g = generator(seed + 3)
    moved = [
        {
            n: t + drift * draw(g, *t.shape, dtype=t.dtype) if names is None or n in names else t.clone()
            for n, t in start.items()
        }
        for _ in range(count)
    ]
    return [
        Update(f"C{i}", state, w)
        for i, (state, w) in enumerate(zip(moved, weights_of(seed, count, zeros=zeros), strict=True))
    ]


def shares(updates: Sequence[Update]) -> list[float]:
    total = sum(u.weight for u in updates)
    return [u.weight / total for u in updates]


def effective(state: State, spec: LoraPart, base: State | None = None) -> dict[str, Tensor]:
    """Dense weights by definition: what the layer adds to the frozen one, or for DoRA the whole of it."""
    found = {}
    for pair in pairs_of(state, {"within": spec}):
        t = {
            name.removeprefix(pair.layer + "."): value.double()
            for name, value in state.items()
            if name.startswith(pair.layer)
        }
        b = t["lora_B.weight"] @ t["lora_M.weight"] if "lora_M.weight" in t else t["lora_B.weight"]
        low = spec.alpha / spec.rank * b @ t["lora_A.weight"]
        side = t["lora_side_B"] @ t["lora_side_A"] if "lora_side_A" in t else torch.zeros_like(low)
        if not spec.dora:
            found[pair.layer] = side + low
            continue
        assert base is not None
        inner = (
            t.get("lora_side_scale", torch.ones(len(low), dtype=torch.float64))[:, None] * base[pair.layer] + side + low
        )
        norm = inner.norm(dim=1)
        found[pair.layer] = (t["lora_magnitude_vector.weight"].flatten() / norm)[:, None] * inner
    return found


def ideal(updates: Sequence[Update], spec: LoraPart, base: State | None = None) -> dict[str, Tensor]:
    """sum_i w_i (effective weight of i)."""
    each = [effective(u.state, spec, base) for u in updates]
    return {layer: sum(w * e[layer] for w, e in zip(shares(updates), each, strict=True)) for layer in LAYERS}


def gap(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    """Relative Frobenius distance over all layers."""
    missed = math.sqrt(sum(float((a[n] - b[n]).norm() ** 2) for n in b))
    return missed / max(math.sqrt(sum(float(b[n].norm() ** 2) for n in b)), 1e-300)


def same(a: State, b: State) -> bool:
    return list(a) == list(b) and all(torch.equal(a[n], b[n]) and a[n].dtype == b[n].dtype for n in a)
