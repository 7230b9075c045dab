"""What aggregation rules and LoRA parts can do together, and the ranges of their options, as finished sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from common.adapters.lowrank import DORA_RULES, FEDSVD, LORA_RULES, RANKED, STACKED, WITH_SIDE, lora_rule
from common.config.federation import FEDERATIONS

EVERYONE = "*"  # among a step's centers: every center that can
COORDINATE = frozenset({"bulyan", "median", "trimmed_mean"})
SERVER_OPTIMIZERS = frozenset({"fedadagrad", "fedadam", "fedavgm", "fedyogi"})
CONTROLLED = frozenset({"feddyn", "scaffold"})
CHOOSES_WEIGHTS = frozenset({"centered_clip", "geometric_median", "krum", "mean", "multi_krum", "norm_clip"})
"""Rules that end in one weighted combination of updates: the only ones that stacked products can be made with."""
SUM_ONLY = frozenset({"mean", "feddyn", "scaffold"}) | SERVER_OPTIMIZERS
"""Rules that never look at one update by itself: the only ones for secure sums."""
BOUNDS: dict[str, tuple[int, int]] = {
    "bulyan": (4, 3),
    "centered_clip": (2, 1),
    "geometric_median": (2, 1),
    "krum": (2, 3),
    "median": (2, 1),
    "multi_krum": (2, 3),
    "norm_clip": (2, 1),
    "trimmed_mean": (2, 1),
}
"""Kind -> (a, b): the rule needs n >= a f + b updates."""


def least_updates(kind: str, faulty: int) -> int:
    """The fewest updates with which a rule withstands ``faulty`` of them."""
    times, plus = BOUNDS[kind]
    return times * faulty + plus


def clashes(federation: Any, parts: Mapping[str, Any]) -> list[str]:
    """Why a federation's rule cannot work with the LoRA parts, one sentence each; empty where it can."""
    return [
        sentence
        for name, spec in parts.items()
        if spec.kind == "lora"
        for sentence in _clash(federation.kind, name, lora_rule(spec), dora=spec.dora)
    ]


def option_problems(federation: Any) -> Iterator[str]:
    """Options of a federation out of their range."""
    kind = getattr(federation, "kind", None)
    if kind not in FEDERATIONS:
        yield f"federation.kind is '{kind}'; it can be {', '.join(sorted(FEDERATIONS))}."
        return
    for option, (low, high, words) in _RANGES.items():
        value = getattr(federation, option, None)
        if value is not None and not low <= value <= high:
            yield f"federation.{option} is {value}; it must be {words}."


def center_problems(federation: Any, centers: Sequence[str], *, rounds: int) -> Iterator[str]:
    """Fewer centers than a robust rule needs, where the step names them and trains."""
    kind, named = federation.kind, len(set(centers))
    if kind not in BOUNDS or EVERYONE in centers or not rounds or federation.faulty < 0:
        return
    (times, plus), least = BOUNDS[kind], least_updates(kind, federation.faulty)
    if named < least:
        yield (
            f"federation {kind} withstands {federation.faulty} faulty centers among at least {times} x "
            f"{federation.faulty} + {plus} = {least}, but the step names {named}, so every round would be void; "
            f"{_way_out(kind, named)}."
        )


def _way_out(kind: str, named: int) -> str:
    """What to do with so few centers."""
    times, plus = BOUNDS[kind]
    most = (named - plus) // times
    lower = f"lower federation.faulty to {most}" if most > 0 else ""
    others = sorted(other for other in BOUNDS if kind != other and least_updates(other, 1) <= named)
    fits = (
        [] if lower else [f"use {' or '.join(others)} with federation.faulty=1"] if others else ["use federation=mean"]
    )
    return ", or ".join(["name more centers", *([lower] if lower else []), *fits])


def part_problems(name: str, spec: Any) -> Iterator[str]:
    """Options of a LoRA part that its rule cannot have."""
    rule = lora_rule(spec)
    if rule not in LORA_RULES:
        yield f"part '{name}' has rule '{rule}'; it can be {', '.join(LORA_RULES)}."
    elif spec.dora and rule not in DORA_RULES:
        yield (
            f"part '{name}' is DoRA, whose row norms make rule '{rule}' inexact without saying so; use flora (exact) "
            "or fedit (reported)."
        )
    if rule in WITH_SIDE and spec.side_rank < 1:
        yield f"part '{name}' has side_rank {spec.side_rank}; rule '{rule}' needs 1 or more."
    if spec.ranks and rule not in RANKED:
        yield (
            f"part '{name}' gives {', '.join(sorted(spec.ranks))} a rank of their own, which rule {rule} cannot "
            f"average; use {' or '.join(sorted(RANKED))}."
        )
    for center, rank in sorted(spec.ranks.items()):
        if not 1 <= rank <= spec.rank:
            yield f"part '{name}' gives {center} rank {rank}; it can be 1 to the part's own rank, {spec.rank}."


def _clash(kind: str, part: str, rule: str, *, dora: bool) -> Iterator[str]:
    if rule in STACKED and kind not in CHOOSES_WEIGHTS:
        yield (
            f"Part '{part}' is aggregated by products of factors (rule {rule}), federation {kind} works on single "
            f"tensors; use rolora for the part, or one of {', '.join(sorted(CHOOSES_WEIGHTS))}."
        )
    if rule == FEDSVD and kind in CONTROLLED:
        yield (
            f"Part '{part}' gets a new basis each round (rule fedsvd), which what centers keep for {kind} does not "
            "follow; use ffa or rolora for the part."
        )


_SHARE, _POSITIVE = (0.0, 1.0 - 1e-12, "in [0, 1)"), (1e-12, float("inf"), "positive")
_RANGES: dict[str, tuple[float, float, str]] = {
    "learning_rate": _POSITIVE,
    "alpha": _POSITIVE,
    "tau": _POSITIVE,
    "bound": _POSITIVE,
    "momentum": _SHARE,
    "beta1": _SHARE,
    "beta2": _SHARE,
    "smoothing": _SHARE,
    "faulty": (0, float("inf"), "0 or more"),
    "keep": (1, float("inf"), "1 or more"),
    "iterations": (1, float("inf"), "1 or more"),
}
