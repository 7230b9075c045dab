"""How updates become one state: pure functions, one file per family, and the closed registry of rules.

The contract: ``rule(updates, start, memory, setting) -> Aggregated(state, memory, report, notes)``.

- ``updates``: `Update` (center, state *as trained*, weight, extra), one per center, in any order.
- ``start``: what the round began with. The result has its names, shapes and dtypes.
- ``memory``: named tensors that the rule keeps between rounds, {} at first; stored and restored, it continues bit for
  bit. A rule that needs none hands back what it was given.
- ``setting``: the step's federation spec, its parts, the round (see `Setting`).

Every rule is pure; takes a tensor over the updates that carry it and leaves one that nobody carries as it is; works in
float64 in the order of center codes, so that the order of replies does not change a bit; ignores updates of weight 0;
gives finite values for finite ones; and refuses, with the numbers, fewer updates than it needs (`TooFewUpdates`: the
round is void; a part that fewer carry stays as it was, with a note). One update alone comes back exactly from ``mean``,
``median`` and ``trimmed_mean`` with f = 0.

`aggregate` is the door: it puts updates in order, drops what this round does not train, checks that the rule can work
with the step's LoRA parts, runs the rule and, where a part asks for it, takes a new basis (FedSVD).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from common.adapters.lowrank import trained_tensors
from common.config.compatibility import clashes
from common.errors import AdapterError, UnknownName
from common.plugins import Registry
from common.protocol.messages import State
from server.aggregation import drift, lowrank, optimizers, robust
from server.aggregation.mean import WEIGHTS, average
from server.aggregation.moments import averaged
from server.aggregation.types import Aggregated, Setting, Update, canonical, restricted

Rule = Callable[[Sequence[Update], State, State, Setting], Aggregated]

RULES: Registry[Rule] = Registry(
    "aggregation rule",
    "build",
    {
        "bulyan": robust.bulyan,
        "centered_clip": robust.centered_clip,
        "fedadagrad": optimizers.adaptive,
        "fedadam": optimizers.adaptive,
        "fedavgm": optimizers.fedavgm,
        "feddyn": drift.feddyn,
        "fedyogi": optimizers.adaptive,
        "geometric_median": robust.geometric_median,
        "krum": robust.krum,
        "mean": average,
        "median": robust.median,
        "multi_krum": robust.multi_krum,
        "norm_clip": robust.norm_clip,
        "scaffold": drift.scaffold,
        "trimmed_mean": robust.trimmed_mean,
    },
)


def aggregate(updates: Sequence[Update], start: State, memory: State, setting: Setting) -> Aggregated:
    """A round's updates as one state. See the module for what holds for every rule.

    Raises:
        TooFewUpdates: fewer updates than the rule needs for its promise.
        AdapterError: a rule that cannot work with the step's LoRA parts, or updates that do not belong to the step.
    """
    kind = setting.federation.kind
    if kind not in RULES:
        raise UnknownName("aggregation rule", kind, RULES)
    problems = clashes(setting.federation, setting.parts)
    if problems:
        raise AdapterError(" ".join(problems))
    trained = trained_tensors(start, setting.parts, round=setting.round)
    ordered = [restricted(update, start, trained) for update in canonical(updates)]
    done = RULES[kind](ordered, start, memory, setting)
    state, kept = lowrank.refresh(done.state, done.memory, setting)
    return replace(done, state=state, memory=kept | averaged(ordered, memory))


def weight_of(federation: Any, cases: int) -> float:
    """An update's weight from the center's registered training cases; 1 where every center is one voice."""
    return WEIGHTS[getattr(federation, "weighting", "uniform")](cases)
