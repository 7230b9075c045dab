"""A round of which the server knows sums alone: training and validation under masks, and what the ledger says of it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from common.errors import RoundFailed, WireError
from common.privacy.masking.center import Vectors
from common.privacy.masking.numbers import Form
from common.protocol.masked import (
    SUMS,
    UPDATE,
    Layout,
    masked_form,
    scoring_layout,
    sums_in,
    training_layout,
    update_in,
)
from common.protocol.messages import TOO_FEW_CASES, Order, State, Sums
from common.protocol.weights import weight_of
from common.tasks import Task
from server.aggregation.types import Update
from server.centers.federation import Federation, Traffic, added
from server.learning.outcome import Outcome
from server.learning.strategy import AdapterStrategy
from server.learning.validation import value_of
from server.masking.asking import SecureSum

GUARDS_OFF = [
    "norms of single updates",
    "replays of single updates",
    "case counts claimed by single centers",
    "plausibility of single centers' losses and scores",
    "the median of centers' own scores",
]
"""Guards that look at one center's numbers: there are none to look at."""
ROUNDING = 1e-6  # of a sum of weights
log = logging.getLogger("fedgraft.server")

Deliver = Callable[[list[Any]], Any]  # messages to what came back


@dataclass
class Asked:
    """What a secure sum of a phase brought: who is in it, and their sum."""

    vectors: Vectors
    parts: list[bool]
    asked: int  # centers
    threshold: int


def train_securely(
    federation: Federation, strategy: AdapterStrategy, number: int, state: State, deliver: Deliver
) -> tuple[Traffic, State | None]:
    """The new state after a round, None where it is void; `AdapterStrategy.outcome` says who is in it and why not."""
    order = strategy.training_order(number, state)
    spec = order.step.federation
    layout = training_layout(order, {name: state[name] for name in strategy.expected(number)})
    weights = {center: weight_of(spec, strategy.registered(center)) for center in strategy.cases}
    most = max(weights.values(), default=1.0)
    traffic: Traffic = {}
    try:
        asked = _asked(federation, strategy, order, layout, deliver, most=most, traffic=traffic)
        form = Form(spec.secure_bound, most, asked.asked)
        carried = [part for part, there in zip(layout.parts, asked.parts, strict=True) if there]
        mean, summed = update_in(layout, form, asked.vectors[UPDATE], state, carried)
        _check_weights(summed, sum(weights[center] for center in strategy.outcome.accepted))
        sums = sums_in(layout, asked.vectors[SUMS]) if layout.sums else Sums()
        _check_possible(strategy, sums, math.inf)
        strategy.outcome.secure = _record(strategy.outcome, asked, sums)
        own = {part: {n: t for n, t in mean.items() if n.partition("/")[0] == part} for part in carried}
        updates = [Update(f"sum of {part}", own[part], summed[part]) for part in sorted(carried)]
        return traffic, strategy.aggregate_sum(updates, state, number)
    except (RoundFailed, WireError) as error:
        _void(strategy, number, str(error))
        return traffic, None


def validate_securely(
    federation: Federation, strategy: AdapterStrategy, task: Task, number: int, state: State, deliver: Deliver
) -> tuple[Traffic, dict[str, Any]]:
    """A round's validation as the ledger holds it: the pooled value alone."""
    metric = strategy.order.step.selection.metric or task.primary
    found: dict[str, Any] = {"metric": metric, "pooled": None, "loss": None, "centers": {}}
    traffic: Traffic = {}
    order = strategy.validation_order(number, state)
    layout = scoring_layout(order)
    try:
        asked = _asked(federation, strategy, order, layout, deliver, most=1.0, traffic=traffic)
        sums = sums_in(layout, asked.vectors[SUMS])
        most = sum((strategy.validation or {}).get(center, 0) for center in strategy.outcome.accepted)
        _check_possible(strategy, sums, math.inf if strategy.validation is None else float(most))
    except (RoundFailed, WireError) as error:
        log.warning("round=%s is not validated: %s", number, error)
        return traffic, found | {"why": str(error)}
    pooled, loss = (value_of(task, sums, name) for name in (metric, "loss"))
    return traffic, found | {"pooled": pooled, "loss": loss, "over": len(strategy.outcome.accepted)}


def _asked(
    federation: Federation,
    strategy: AdapterStrategy,
    order: Order,
    layout: Layout,
    deliver: Deliver,
    *,
    most: float,
    traffic: Traffic,
) -> Asked:
    """The five phases; whom one of them lost stands in the strategy's outcome with the code. Raises RoundFailed."""
    resting, held = strategy.resting, strategy.validation if order.subset else None
    there = [center for center in sorted(strategy.nodes) if center not in resting]
    centers = [center for center in there if held is None or held.get(center, 0) > 0]
    summed = SecureSum(federation, order, centers, most=most)
    strategy.outcome = Outcome(rejected={center: code for center, code in resting.items() if center in strategy.nodes})
    try:
        masking = summed.begin()
        out = dict.fromkeys(set(there) - set(summed.context.centers), TOO_FEW_CASES)
        strategy.resting = {**resting, **out, **summed.failed}
        kind = "evaluate" if order.subset else "train"
        delivery = deliver(strategy.messages(kind, replace(order, masking=masking)))
        traffic |= added(traffic, delivery.bytes)
        strategy.screen_masked(delivery.messages, masked_form(layout), kind)
        accepted = {center: reply.extra for center, reply in strategy.outcome.accepted.items()}
        vectors, parts = summed.finish(accepted)
    finally:
        strategy.resting = resting
        traffic |= added(traffic, summed.bytes)
        strategy.outcome.rejected = {**summed.failed, **strategy.outcome.rejected}
    return Asked(vectors, parts, len(summed.context.centers), summed.context.threshold)


def _check_weights(summed: dict[str, float], registered: float) -> None:
    """The screen on the aggregate: nobody gains weight by claiming cases, beyond what all registered together."""
    wrong = {part: weight for part, weight in summed.items() if weight > registered * (1 + ROUNDING)}
    if wrong:
        part, weight = sorted(wrong.items())[0]
        raise RoundFailed(
            f"The centers of part {part} weigh {weight:g} together, and {registered:g} are registered: one of them "
            "claims cases that it has not, and a secure sum does not say which."
        )


def _check_possible(strategy: AdapterStrategy, sums: Sums, most: float) -> None:
    wrong = strategy.scores.impossible(sums, most) if sums else ""
    if wrong:
        raise RoundFailed(
            f"The centers' sums are none that patients could make ({wrong}), and no sum says whose it is."
        )


def _record(outcome: Outcome, asked: Asked, sums: Sums) -> dict[str, Any]:
    """What the ledger holds of a secure round beside its state."""
    cases = float(sums["fit.cases"]) if sums else 0.0
    return {
        "centers": len(outcome.accepted),
        "threshold": asked.threshold,
        "loss": float(sums["fit.loss"]) / cases if cases else None,
        "cases": int(cases),
        "batches": int(sums["fit.batches"]) if sums else 0,
        "guards_off": GUARDS_OFF,
    }


def _void(strategy: AdapterStrategy, number: int, why: str) -> None:
    strategy.outcome.void = why
    strategy.outcome.accepted.clear()
    log.warning("round=%s void: %s", number, why)
