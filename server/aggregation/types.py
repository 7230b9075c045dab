"""What every aggregation rule takes and gives, and the checks that come before all of them."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from common.errors import AdapterError
from common.protocol.messages import State

CHUNK = 1 << 16  # coordinates at a time: what a core's cache holds


@dataclass
class Update:
    """One center's contribution to a round.

    Args:
        center: its code; updates are always taken in the order of codes.
        state: the tensors that it trained, as trained (absolute values, not differences).
        weight: at least 0; an update of weight 0 counts nowhere.
        extra: what a stateful rule asks for in addition to the state: ``control/<name>`` for SCAFFOLD.
    """

    center: str
    state: State
    weight: float
    extra: State = field(default_factory=dict)


@dataclass
class Setting:
    """What a rule must know of the step in addition to the updates.

    Args:
        federation: the step's federation spec, one of `FEDERATIONS`.
        parts: the step's adapter parts by name.
        round: from 1.
        total_weight: of all centers of the step, there or not (SCAFFOLD, FedDyn); null: those that replied are all.
        base: ``<part>/<path>`` -> frozen weight of the DoRA parts (`common.adapters.lora.frozen_weights`).
        stopped: centers that the guards keep out of this round: a robust rule may count them among its faulty ones.
    """

    federation: Any
    parts: Mapping[str, Any] = field(default_factory=dict)
    round: int = 1
    total_weight: float | None = None
    base: Mapping[str, Tensor] = field(default_factory=dict)
    stopped: int = 0


@dataclass
class Aggregated:
    """What a round gave.

    Args:
        state: every tensor of the start, same names, shapes and dtypes.
        memory: what the server's rule must have next round: named tensors, to be stored with the checkpoint.
        report: numbers for the ledger.
        notes: sentences for the ledger: what a rule costs where it is not exact.
    """

    state: State
    memory: State = field(default_factory=dict)
    report: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def canonical(updates: Iterable[Update]) -> list[Update]:
    """The updates that count, in the order of center codes, whatever order they came in.

    Raises:
        AdapterError: for a weight that is not a finite number of at least 0, or a center that is there twice.
    """
    return list(in_order(sorted(updates, key=lambda update: update.center)))


def in_order(updates: Iterable[Update]) -> Iterator[Update]:
    """Updates as they come, checked to come in the order of center codes; those of weight 0 are left out."""
    last = ""
    for update in updates:
        if not (math.isfinite(update.weight) and update.weight >= 0):
            raise AdapterError(f"The update of {update.center} has weight {update.weight}; weights are 0 or more.")
        if update.center <= last:
            raise AdapterError(
                f"The update of {update.center} comes after the one of {last}; give one update per center, in order."
            )
        last = update.center
        if update.weight > 0:
            yield update


def restricted(update: Update, start: State, names: Collection[str]) -> Update:
    """The update without what this round does not train: a frozen factor that came along changes nothing."""
    unknown = sorted(set(update.state) - set(start))
    if unknown:
        raise AdapterError(f"The update of {update.center} carries '{unknown[0]}', which the step does not have.")
    return replace(update, state={name: tensor for name, tensor in update.state.items() if name in names})


def groups(updates: Sequence[Update], start: State) -> list[tuple[list[str], list[Update]]]:
    """Names that the same updates carry, with those updates: what a rule looks at together.

    A center without PET carries no PET part; each such group is aggregated over its own centers, and a tensor that
    nobody carries is in no group.
    """
    by_carriers: dict[tuple[int, ...], list[str]] = {}
    for name in start:
        carriers = tuple(i for i, update in enumerate(updates) if name in update.state)
        if carriers:
            by_carriers.setdefault(carriers, []).append(name)
    return [(names, [updates[i] for i in carriers]) for carriers, names in by_carriers.items()]


def check_shape(update: Update, name: str, like: Tensor) -> None:
    """Refuse a tensor of another shape than the start's: only rules that stack factors can take other ranks."""
    shape = tuple(update.state[name].shape)
    if shape != tuple(like.shape):
        raise AdapterError(
            f"The update of {update.center} has '{name}' of shape {shape}, expected {tuple(like.shape)}; centers of "
            "different rank need rule flora or flexlora."
        )
