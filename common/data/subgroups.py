"""Subgroups: groups of patients by which test scores are also told, a closed list with their levels.

A step names the groups (`Step.subgroups`) and the ages between bands (`Step.age_cuts`). Whose group is not recorded is
in no level: what is left of a total is such a level, too, and is guarded like one. A level's sums travel as
``GROUP=LEVEL/SUM``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Protocol

from common.data.records import Record

LEVELS: dict[str, tuple[str, ...]] = {
    "age": (),  # by the step's cuts
    "hpv": ("negative", "positive"),
    "scanner": ("canon", "ge", "philips", "siemens", "other"),
    "sex": ("female", "male"),
    "t_stage": ("t0", "t1", "t2", "t3", "t4"),
}
APART = "/"  # between a level and the name of a sum


class Grouped(Protocol):
    """What of a step matters here."""

    subgroups: list[str]
    age_cuts: list[float]


def levels_of(step: Grouped) -> list[str]:
    """Every level of the step's groups, as ``GROUP=LEVEL``, in the order in which they are shown."""
    found = {**LEVELS, "age": tuple(_bands(step.age_cuts))}
    return [f"{group}={level}" for group in step.subgroups for level in found[group]]


def members_of(step: Grouped, records: Sequence[Record]) -> dict[str, list[int]]:
    """Level -> places of the records that are of it."""
    found: dict[str, list[int]] = {level: [] for level in levels_of(step)}
    for place, record in enumerate(records):
        for group in step.subgroups:
            level = _READ[group](record, step.age_cuts)
            if level is not None:
                found[f"{group}={level}"].append(place)
    return found


def sums_told(by_subgroup: Mapping[str, Sequence[str]]) -> list[str]:
    """The sums that are told of a subgroup, of what a task's metrics by subgroup are made from (`Task.by_subgroup`)."""
    return sorted({name for needs in by_subgroup.values() for name in needs})


def named(level: str, sums: Mapping[str, Any]) -> dict[str, Any]:
    """Sums of a level, or their shapes, under the names by which they travel."""
    return {f"{level}{APART}{name}": value for name, value in sums.items()}


def apart(sums: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Sums over everybody, and those of each level under their own names."""
    everybody: dict[str, Any] = {}
    by_level: dict[str, dict[str, Any]] = {}
    for name, value in sums.items():
        level, _, own = name.rpartition(APART)
        is_of_level = level.partition("=")[0] in LEVELS
        (by_level.setdefault(level, {}) if is_of_level else everybody)[own if is_of_level else name] = value
    return everybody, by_level


def _bands(cuts: Sequence[float]) -> list[str]:
    """``under 50``, ``50 to 65`` and ``65 or more``: a cut belongs to the band above it."""
    if not cuts:
        return []
    between = [f"{low:g} to {high:g}" for low, high in pairwise(cuts)]
    return [f"under {cuts[0]:g}", *between, f"{cuts[-1]:g} or more"]


def _age(record: Record, cuts: Sequence[float]) -> str | None:
    if "age" not in record or not cuts:
        return None
    return _bands(cuts)[sum(float(record["age"]) >= cut for cut in cuts)]


def _hpv(record: Record, cuts: Sequence[float]) -> str | None:
    return LEVELS["hpv"][int(float(record["hpv"]))] if "hpv" in record else None


def _written(field: str) -> Callable[[Record, Sequence[float]], str | None]:
    return lambda record, cuts: str(record[field]) if field in record else None


_READ: dict[str, Callable[[Record, Sequence[float]], str | None]] = {
    "age": _age,
    "hpv": _hpv,
    "scanner": _written("scanner"),
    "sex": _written("gender"),
    "t_stage": _written("t_stage"),
}
