"""How many faulty centers a robust rule withstands among those that carry a part, and which parts too few carry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from common.config.compatibility import BOUNDS, least_updates
from common.errors import TooFewUpdates
from common.protocol.messages import State
from server.aggregation.types import Setting, Update, canonical, check_shape, groups


def withstood(kind: str, faulty: int, *, updates: int, stopped: int = 0) -> int | None:
    """How many faulty ones of ``updates`` a rule withstands: ``faulty``, lowered as far as its bound requires and by at
    most the ``stopped`` centers; None where that is not far enough."""
    times, plus = BOUNDS[kind]
    most = (updates - plus) // times
    return min(faulty, most) if most >= _fewest_faulty(faulty, stopped) else None


def _fewest_faulty(faulty: int, stopped: int) -> int:
    return max(0, faulty - stopped)


@dataclass(frozen=True)
class Group:
    """Tensors that the same updates carry, and how many of those updates are taken to be faulty."""

    names: list[str]
    carriers: list[Update]
    faulty: int


def _parts(names: Sequence[str]) -> str:
    return ", ".join(sorted({name.partition("/")[0] for name in names}))


def withstanding_groups(updates: Sequence[Update], start: State, setting: Setting, notes: list[str]) -> list[Group]:
    """Tensors with their carriers, each group large enough for the rule; what is not so, or only so with fewer faulty
    ones, is noted. Raises TooFewUpdates where no group is large enough."""
    ordered = canonical(updates)
    for update in ordered:
        for name in update.state:
            check_shape(update, name, start[name])
    spec, stopped = setting.federation, setting.stopped
    found: list[Group] = []
    short: list[str] = []
    for names, carriers in groups(ordered, start):
        faulty = withstood(spec.kind, spec.faulty, updates=len(carriers), stopped=stopped)
        if faulty is None:
            short.append(f"{len(carriers)} updates carry {_parts(names)}")
            continue
        found.append(Group(names, carriers, faulty))
        if faulty < spec.faulty:
            notes.append(_lowered(spec, faulty, stopped, len(carriers), names))
    if short and not found:
        raise TooFewUpdates(
            f"{_needs(spec, stopped)}, but {' and '.join(short)}: the round is void. Lower federation.faulty, or "
            "choose a rule with a lower bound (norm_clip, geometric_median)."
        )
    notes += [f"{_needs(spec, stopped)}, but {there}: that stays as it was." for there in short]
    return found


def _lowered(spec: Any, faulty: int, stopped: int, updates: int, names: Sequence[str]) -> str:
    return (
        f"Rule {spec.kind} withstands {faulty} instead of {spec.faulty} faulty centers among the {updates} that send "
        f"{_parts(names)}: the guards keep {stopped} out of this round."
    )


def _needs(spec: Any, stopped: int) -> str:
    times, plus = BOUNDS[spec.kind]
    faulty = _fewest_faulty(spec.faulty, stopped)
    less = f" ({spec.faulty}, less those of the {stopped} stopped by the guards)" if faulty < spec.faulty else ""
    return (
        f"Rule {spec.kind} withstands {faulty} faulty centers{less} among at least {times} x {faulty} + {plus} = "
        f"{least_updates(spec.kind, faulty)}"
    )
