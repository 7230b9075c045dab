"""What a step is whose updates are only looked at as sums, as finished sentences; a hospital checks the same."""

from __future__ import annotations

from collections.abc import Iterator

from common.adapters.lowrank import STACKED, lora_rule
from common.config.adapter import LoraPart
from common.config.compatibility import SUM_ONLY
from common.config.methods import KEEPING, methods_asked
from common.config.run import Run
from common.config.step import Step

NEWTON = "newton"


def sum_problems(step: Step, run: Run) -> Iterator[str]:
    """What a step that only sums may be looked at of cannot have, and what a secure one cannot, beside."""
    yield from _sum_only(step)
    yield from _secure(step)


def _sum_only(step: Step) -> Iterator[str]:
    spec = step.federation
    if not (spec.sum_only or spec.secure_aggregation):
        return
    option = "secure_aggregation" if spec.secure_aggregation else "sum_only"
    if spec.kind == NEWTON and spec.secure_aggregation:  # sums are all that it asks for, and it has no updates
        return
    if spec.kind not in SUM_ONLY:
        yield f"federation.{option} hides single updates, {spec.kind} looks at them; use {', '.join(sorted(SUM_ONLY))}."
    stacked = [name for name, part in step.adapter.parts.items() if isinstance(part, LoraPart) and _stacks(part)]
    for name in stacked:
        yield f"part '{name}' stacks the centers' factors, which {option} hides; use rolora, ffa, fedsvd or fedsb."
    if spec.guards.norm_factor > 0 or spec.guards.norm_cap is not None:
        yield f"federation.{option} hides each update's norm: set guards.norm_factor to 0 and norm_cap to null."
    if spec.guards.validation != "pooled":
        yield f"federation.{option} hides the centers' own scores: set guards.validation to pooled."
    if spec.compression.kind in ("int8", "topk"):
        yield f"{spec.compression.kind} gives each center its own scales, and such sums mean nothing; use none or fp16."


def _secure(step: Step) -> Iterator[str]:
    """What a secure sum cannot be asked, or would be told beside it."""
    spec = step.federation
    if not 0 < spec.secure_bound < float("inf"):
        yield f"federation.secure_bound is {spec.secure_bound:g}; it must be positive and finite, such as 1."
    if not spec.secure_aggregation:
        return
    if spec.kind == "scaffold":
        yield "federation.secure_aggregation has no bound for SCAFFOLD's control variates; use mean or feddyn."
    if spec.compression.kind != "none":
        yield (
            f"compression {spec.compression.kind} rounds each center's update in its own way, and masks are of whole "
            "numbers; set federation.compression.kind to none (an update is 4 bytes a number)."
        )
    if "*" not in step.centers and step.rounds > 0 and len({*step.centers}) < 3:
        yield f"it names {len({*step.centers})} centers, and a secure sum is of three or more; name more."
    if step.subgroups:
        yield "scores by subgroup are told center by center, which secure_aggregation hides; leave subgroups empty."
    for name, part in step.adapter.parts.items():
        if getattr(part, "harmonize", ""):
            yield (
                f"part '{name}' is harmonized by each center's own moments, which secure_aggregation hides; leave "
                "harmonize empty."
            )
    told = sorted({method.kind for method in methods_asked(step)} & KEEPING)
    for kind in told:
        yield f"method {kind} needs sums of single centers at a step's end, which secure_aggregation hides."
    if getattr(step.task, "imbalance", "") == "counts":
        yield "task.imbalance is 'counts', which single centers tell, in the clear; use none, or weights."
    if getattr(step.task, "grid", "") == "quantiles" and not step.task.cuts_days:
        yield "task.grid is 'quantiles', of event times that single centers tell in the clear; use equal, or cuts_days."


def _stacks(part: LoraPart) -> bool:
    return lora_rule(part) in STACKED
