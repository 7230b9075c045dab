"""Beside: the arms that stand next to the federated one, in the order of every table; some are run on request.

``compare.arms`` names what is run in addition. An arm that no round trains is a recorder: a function from a step's
centers to its test patients' records. A new one is a name in `simulations.comparison.names`, a file, and a line here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from client.center.center import Center
from common.config.adapter import VoxelLinearPart
from common.config.run import Compare, Run
from common.config.step import Step
from common.protocol.messages import State
from simulations.comparison.names import (
    BLURS,
    CENTRALIZED,
    EXACT,
    EXACT_RANDOM,
    FEDERATED,
    FEDERATIONS,
    LEFT_OUT,
    LOCAL,
    ON_NETWORK,
    RANDOM,
    UNTRAINED,
)
from simulations.comparison.patients import Observed
from simulations.comparison.recorded.exact_arm import has_exact_form, observe_exact
from simulations.comparison.recorded.exact_voxels_arm import BLURRED, FROZEN, has_exact_head, observe_exact_voxels
from simulations.comparison.recorded.rules_arm import RULES, Rule, has_rules, observe_rule


@dataclass(frozen=True)
class At:
    """One step of a run and who takes part in it, as a recorder sees it."""

    run: Run
    step: Step
    start: State
    base: str
    trained: Sequence[Center]
    evaluated: Sequence[Center]


Recorder = Callable[[At], list[Observed]]


def _exact(at: At) -> list[Observed]:
    if has_exact_form(at.step):
        return observe_exact(at.run, at.step, trained=at.trained, evaluated=at.evaluated, base=at.base)
    return _head(FROZEN)(at)


def _head(part: VoxelLinearPart) -> Recorder:
    def record(at: At) -> list[Observed]:
        if not has_exact_head(at.step):
            return []
        return observe_exact_voxels(at.run, at.step, part, trained=at.trained, evaluated=at.evaluated, base=at.base)

    return record


def _ruled(rule: Rule) -> Recorder:
    def record(at: At) -> list[Observed]:
        if not has_rules(at.step):
            return []
        return observe_rule(at.run, at.step, rule, evaluated=at.evaluated, base=at.base, start=at.start)

    return record


RECORDERS: Mapping[str, Recorder] = {  # arm -> what it says of a step's test patients; nothing where it has no form
    EXACT: _exact,
    BLURS: _head(BLURRED),
    EXACT_RANDOM: _head(FROZEN),  # its run has the backbone at random weights
    **{arm: _ruled(rule) for arm, rule in RULES.items()},
}
REQUESTED: Mapping[str, tuple[str, ...]] = {  # word of compare.arms -> the arms that it adds
    "blurs": (BLURS,),
    "exact_random": (EXACT_RANDOM,),
    "left_out": (LEFT_OUT,),
    "rules": tuple(RULES),
    "unet": ON_NETWORK,
}


def requested(compare: Compare) -> list[str]:
    """The arms that a comparison adds, in the order of `REQUESTED`."""
    return [arm for word, arms in REQUESTED.items() if word in compare.arms for arm in arms]


def beside(compare: Compare) -> list[str]:
    """Every arm of a comparison but the federated one, in the order of its tables."""
    random = [RANDOM] if compare.random_backbone else []
    return [CENTRALIZED, LOCAL, EXACT, *requested(compare), *random, UNTRAINED]


def federations(compare: Compare) -> list[str]:
    """The arms of a comparison that are whole federated runs."""
    return [FEDERATED, *(arm for arm in beside(compare) if arm in FEDERATIONS)]


def pairs_of_heads(compare: Compare) -> list[tuple[str, str]]:
    """Arms that are compared with each other beside what the federated one is compared with: the exact head with
    everything that was requested but what leaves a center out, which is no rival."""
    return [(EXACT, arm) for arm in requested(compare) if arm != LEFT_OUT]
