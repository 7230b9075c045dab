"""The round loop of one step: train, aggregate, validate, checkpoint; any first round, so that a run can resume.

The start is validated as round 0 and stays the step's state unless a round is better. A round with fewer usable updates
than the quorum is void: the model stays, the ledger says why, the next round begins. A step none of whose rounds counts
fails: the ledger says so, nothing is committed, and the same command repeats its rounds.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from flwr.app import Message

from common.config.step import is_validated
from common.errors import RoundFailed
from common.files import write_tensors
from common.protocol.messages import State
from common.store.ledger import Ledger
from common.tasks import Task
from server.centers.federation import UNREACHED, Delivery, Federation, Traffic, added
from server.centers.roster import Roster, rounds_of
from server.centers.stopped import stopped, why_stopped
from server.learning.attendance import call_roll, resting
from server.learning.checkpoints import keep_best_and_last, load_checkpoint, recall, write_memory
from server.learning.outcome import Outcome
from server.learning.selection import best_round
from server.learning.strategy import AdapterStrategy
from server.learning.validation import validation_of
from server.masking.rounds import train_securely, validate_securely
from server.run.folder import RunFolder
from server.run.narration import Narrator

UNSCORED = {"round": 0, "validation": {"metric": "", "pooled": None}}  # a start that nobody validated


def run_rounds(
    federation: Federation,
    strategy: AdapterStrategy,
    task: Task,
    *,
    folder: RunFolder,
    ledger: Ledger,
    narrator: Narrator,
) -> tuple[State, int]:
    """Run the step's remaining rounds and return the state that its validation rule keeps, with its round.

    Raises RoundFailed when no round counted.
    """
    attempt = len(ledger.events("step_failed", step=strategy.order.step.name))
    strategy.order = replace(strategy.order, attempt=attempt)
    step, start = strategy.order.step, strategy.order.state
    strategy.met, strategy.earlier = Roster(ledger).met, Roster(ledger).earlier(strategy.order.step.name)
    finished = rounds_of(ledger, step.name)
    state = start
    if finished:
        state = load_checkpoint(folder, step.name, finished[-1])
        recall(strategy, folder, finished)
    else:
        _validate_start(federation, strategy, task, ledger)
    for number in range(len(finished) + 1, step.rounds + 1):
        strategy.best = _best(ledger, step.name)["round"]
        asking = call_roll(federation, strategy, ledger, number)
        state, event = _one_round(federation, strategy, task, number, state)
        event |= {"joining_bytes": asking} if asking else {}
        _raise_if_stopped(event, ledger)
        write_tensors(folder.checkpoint(step.name, number), state)
        event["memory_hash"] = write_memory(strategy, folder, number)
        ledger.append("round_finished", event)
        keep_best_and_last(folder, step.name, best=_best(ledger, step.name)["round"], last=number)
        narrator.round_finished(event, of=step.rounds)
    return _best_state(strategy, start, folder, ledger)


# --------------------------------------------------------------------------------------------------- start and end


def _validate_start(federation: Federation, strategy: AdapterStrategy, task: Task, ledger: Ledger) -> None:
    """Round 0: what the step's start is worth, by the rule that judges its rounds."""
    step = strategy.order.step
    if not is_validated(step, 0) or ledger.events("start_validated", step=step.name):
        return
    strategy.resting, started = resting(federation, strategy, ledger), time.perf_counter()
    traffic, validation = _validated(federation, strategy, task, 0, strategy.order.state)
    ledger.append(
        "start_validated",
        {
            "step": step.name,
            "round": 0,
            "state_hash": strategy.digest(strategy.order.state),
            "validation": validation,
            "bytes": traffic,
            "failed": strategy.outcome.rejected,
            "seconds": round(time.perf_counter() - started, 4),
        },
    )


def _best_state(strategy: AdapterStrategy, start: State, folder: RunFolder, ledger: Ledger) -> tuple[State, int]:
    step = strategy.order.step
    rounds = rounds_of(ledger, step.name)
    if all(event["void"] for event in rounds):
        reasons = {center: code for event in rounds for center, code in sorted(event["failed"].items())}
        voids = {str(event["round"]): event["why_void"] for event in rounds}
        ledger.append("step_failed", {"step": step.name, "rounds": voids, "failed": reasons})
        raise RoundFailed(
            f"Step '{step.name}': no round had enough usable updates ({_listed(reasons)}), so nothing is committed. "
            f"{_of_deadline(reasons, step.federation.deadline_s)}The reasons are in the ledger and in the centers' own "
            "logs; start the same command again to repeat its rounds."
        )
    best = _best(ledger, step.name)
    if best["round"] == 0:
        return start, 0
    return load_checkpoint(folder, step.name, best), best["round"]


def _best(ledger: Ledger, step: str) -> dict[str, Any]:
    """The event of the best round so far, the start being round 0; of the last, where nothing is validated."""
    start = ledger.events("start_validated", step=step)[:1] or [UNSCORED]
    return best_round([*start, *rounds_of(ledger, step)])


# --------------------------------------------------------------------------------------------------------- one round


def _one_round(
    federation: Federation, strategy: AdapterStrategy, task: Task, number: int, state: State
) -> tuple[State, dict[str, Any]]:
    step, started = strategy.order.step, time.perf_counter()
    if step.federation.secure_aggregation:
        traffic, new = train_securely(federation, strategy, number, state, lambda m: _deliver(federation, strategy, m))
        trained_at = time.perf_counter()
    else:
        delivery = _deliver(federation, strategy, strategy.training_orders(number, state))
        traffic, trained_at = delivery.bytes, time.perf_counter()
        new = strategy.aggregate(number, delivery.messages)
    trained, aggregated_at = strategy.outcome, time.perf_counter()
    state = state if new is None else new

    validation: dict[str, Any] = {"metric": _metric(strategy, task), "pooled": None, "loss": None, "centers": {}}
    scored = Outcome()
    if new is not None and is_validated(step, number):
        asked, validation = _validated(federation, strategy, task, number, state)
        traffic, scored = added(traffic, asked), strategy.outcome
    validated_at = time.perf_counter()
    return state, {
        "step": step.name,
        "round": number,
        "void": new is None,
        "why_void": trained.void,
        "state_hash": strategy.digest(state),
        "start_fingerprint": trained.start_fingerprint,
        "train": {c: _train_row(reply, trained, strategy.registered(c)) for c, reply in trained.accepted.items()},
        **({"secure_sum": trained.secure} if trained.secure else {}),
        "validation": validation,
        "bytes": traffic,
        "failed": {**scored.rejected, **trained.rejected},
        "quarantined": {**scored.quarantined, **trained.quarantined},
        "duplicates": sorted({*trained.duplicates, *scored.duplicates}),
        "aggregation": trained.report,
        "seconds": {
            "train": round(trained_at - started, 4),
            "aggregate": round(aggregated_at - trained_at, 4),
            "validate": round(validated_at - aggregated_at, 4),
        },
        "slowest_center_s": round(max((reply.seconds for reply in trained.accepted.values()), default=0.0), 4),
    }


def _raise_if_stopped(event: dict[str, Any], ledger: Ledger) -> None:
    if why := why_stopped(event):
        ledger.append("round_stopped", stopped(event, why))
        raise RoundFailed(f"Round {event['round']} of step '{event['step']}' is void and not counted: {why}")


def _deliver(federation: Federation, strategy: AdapterStrategy, messages: list[Message]) -> Delivery:
    names = {node: center for center, node in strategy.nodes.items()}
    return federation.deliver(messages, names=names, timeout_s=strategy.order.step.federation.deadline_s)


def _validated(
    federation: Federation, strategy: AdapterStrategy, task: Task, number: int, state: State
) -> tuple[Traffic, dict[str, Any]]:
    if strategy.order.step.federation.secure_aggregation:
        return validate_securely(
            federation, strategy, task, number, state, lambda messages: _deliver(federation, strategy, messages)
        )
    delivery = _deliver(federation, strategy, strategy.validation_orders(number, state))
    strategy.aggregate_evaluate(number, delivery.messages)
    by_median = strategy.order.step.federation.guards.validation == "median"
    found = validation_of(strategy.outcome, task, metric=_metric(strategy, task), by_median=by_median)
    return delivery.bytes, found


def _metric(strategy: AdapterStrategy, task: Task) -> str:
    return strategy.order.step.selection.metric or task.primary


def _of_deadline(reasons: Mapping[str, str], deadline_s: float) -> str:
    """What `no_reply` means, where it was the reason."""
    silent = UNREACHED in reasons.values()
    return f"{UNREACHED}: nothing came within federation.deadline_s ({deadline_s:g} s). " if silent else ""


def _listed(rejected: dict[str, str]) -> str:
    return ", ".join(f"{center}: {code}" for center, code in sorted(rejected.items()))


def _train_row(reply: Any, outcome: Outcome, registered: int) -> dict[str, Any]:
    """What the ledger holds of a used update; under noise no loss was told, and the counts are public bounds. Of one in
    a secure sum it holds who it is of, and what was registered of its center before."""
    if outcome.secure:
        flags = {name: reply.counts[name] for name in ("afresh", "ahead") if reply.counts.get(name)}
        return {"loss": None, "cases": registered, "seen": 0, "steps": 0, "fingerprint": "", "seconds": 0.0, **flags}
    told = "fit.cases" in reply.sums
    seen = float(reply.sums["fit.cases"]) if told else float(reply.counts["cases"])
    return {
        "loss": float(reply.sums["fit.loss"]) / max(seen, 1.0) if told else None,
        "cases": reply.counts["cases"],
        "steps": reply.counts["batches"],
        "seen": int(seen),
        "skipped": reply.counts.get("skipped", 0),
        **({"afresh": True} if reply.counts.get("afresh") else {}),
        **({"ahead": reply.counts["ahead"]} if reply.counts.get("ahead") else {}),
        "seconds": round(reply.seconds, 3),
        "fingerprint": outcome.fingerprints[reply.center],
    }
