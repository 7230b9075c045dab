"""The round loop of one step: train, aggregate, validate, checkpoint; any first round, so that a run can resume.

The start is validated as round 0 and stays the step's state unless a round is better. A round with fewer usable updates
than the quorum is void: the model stays, the ledger says why, the next round begins. A step none of whose rounds counts
fails: the ledger says so, nothing is committed, and the same command repeats its rounds.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Any

from flwr.app import Message
from safetensors import SafetensorError
from safetensors.torch import load_file

from common.backbones.base import tensors_digest
from common.errors import RoundFailed
from common.files import write_tensors
from common.protocol.messages import State, Sums
from common.store.ledger import Ledger
from common.tasks import Task
from server.centers.enrolment import join
from server.centers.federation import Delivery, Federation, Traffic, added
from server.centers.quarantine import suspended
from server.evaluation.matrix import LOWER_IS_BETTER
from server.learning.strategy import LEFT, SUSPENDED, AdapterStrategy, Outcome
from server.run.folder import RunFolder
from server.run.narration import Narrator

RULE, ERROR = "rule/", "error/"  # in a memory file: what the rule remembers, what the link still owes


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
    step, start = strategy.order.step, strategy.order.state
    finished = rounds_of(ledger, step.name)
    state = start
    if finished:
        state = load_checkpoint(folder, step.name, finished[-1])
        _recall(strategy, folder, finished)
    else:
        _validate_start(federation, strategy, task, ledger)
    for number in range(len(finished) + 1, step.rounds + 1):
        asking = _call_roll(federation, strategy, ledger, number)
        state, event = _one_round(federation, strategy, task, number, state)
        write_tensors(folder.checkpoint(step.name, number), state)
        event["memory_hash"] = _write_memory(strategy, folder, number)
        event |= {"joining_bytes": asking} if asking else {}
        ledger.append("round_finished", event)
        narrator.round_finished(event, of=step.rounds)
    return _kept_state(strategy, start, folder, ledger)


def rounds_of(ledger: Ledger, step: str) -> list[dict[str, Any]]:
    """The step's finished rounds since it last failed: those are repeated."""
    rounds: list[dict[str, Any]] = []
    for event in ledger.events(step=step):
        if event["kind"] == "step_failed":
            rounds = []
        elif event["kind"] == "round_finished":
            rounds.append(event)
    return rounds


def kept_round(rounds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The round with the best pooled validation value; of equals that with the lower validation loss, then the latest.

    The last if none has a value. The start stands first as round 0: equal in both, a trained state is kept.
    """
    valued = [event for event in rounds if event["validation"]["pooled"] is not None]
    if not valued:
        return rounds[-1]
    return max(valued, key=_goodness)


def _goodness(event: dict[str, Any]) -> tuple[float, float, int]:
    validation = event["validation"]
    sign = -1.0 if validation["metric"] in LOWER_IS_BETTER else 1.0
    loss = validation.get("loss")
    return sign * validation["pooled"], -loss if loss is not None else 0.0, event["round"]


def load_checkpoint(folder: RunFolder, step: str, event: dict[str, Any]) -> State:
    """A round's state, checked against the hash in the ledger."""
    path = folder.checkpoint(step, event["round"])
    if not path.exists():
        raise RoundFailed(f"{path} is missing; restore it from a backup, or start a new run folder.")
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise RoundFailed(f"{path} cannot be read ({error}); restore it from a backup.") from error
    if tensors_digest(state) != event["state_hash"]:
        raise RoundFailed(f"{path} does not have the hash in the ledger; restore it from a backup.")
    return state


# --------------------------------------------------------------------------------------------------- start and end


def _validate_start(federation: Federation, strategy: AdapterStrategy, task: Task, ledger: Ledger) -> None:
    """Round 0: what the step's start is worth, by the rule that judges its rounds."""
    step = strategy.order.step
    if ledger.events("start_validated", step=step.name):
        return
    strategy.resting = _resting(federation, strategy, ledger)
    delivery, validation = _validated(federation, strategy, task, 0, strategy.order.state)
    ledger.append(
        "start_validated",
        {
            "step": step.name,
            "round": 0,
            "state_hash": tensors_digest(strategy.order.state),
            "validation": validation,
            "bytes": delivery.bytes,
            "failed": strategy.outcome.rejected,
            "seconds": round(delivery.seconds, 4),
        },
    )


def _kept_state(strategy: AdapterStrategy, start: State, folder: RunFolder, ledger: Ledger) -> tuple[State, int]:
    step = strategy.order.step
    rounds = rounds_of(ledger, step.name)
    if all(event["void"] for event in rounds):
        reasons = {center: code for event in rounds for center, code in sorted(event["failed"].items())}
        voids = {str(event["round"]): event["why_void"] for event in rounds}
        ledger.append("step_failed", {"step": step.name, "rounds": voids, "failed": reasons})
        raise RoundFailed(
            f"Step '{step.name}': no round had enough usable updates ({_told(reasons)}), so nothing is committed. The "
            "reasons are in the ledger and in the centers' own logs; start the same command again to repeat its rounds."
        )
    kept = kept_round([*ledger.events("start_validated", step=step.name)[:1], *rounds])
    if kept["round"] == 0:
        return start, 0
    return load_checkpoint(folder, step.name, kept), kept["round"]


def _recall(strategy: AdapterStrategy, folder: RunFolder, finished: list[dict[str, Any]]) -> None:
    """What the strategy knew after the last finished round."""
    for event in finished:
        if event["void"]:
            continue
        for center, row in event["train"].items():
            strategy.since[center] = event["round"]
            strategy.seen[row["fingerprint"]] = event["start_fingerprint"]
    step, last = strategy.order.step.name, finished[-1]
    if not last.get("memory_hash"):
        return
    path = folder.memory(step, last["round"])
    memory = load_file(path) if path.exists() else {}
    if tensors_digest(memory) != last["memory_hash"]:
        raise RoundFailed(f"{path} is missing or does not have the hash in the ledger; restore it from a backup.")
    strategy.memory = {n.removeprefix(RULE): t for n, t in memory.items() if n.startswith(RULE)}
    strategy.link.error = {n.removeprefix(ERROR): t for n, t in memory.items() if n.startswith(ERROR)}


def _write_memory(strategy: AdapterStrategy, folder: RunFolder, number: int) -> str:
    """Write what the rule and the link remember; its hash, empty where there is nothing. Only the last two are kept."""
    memory = {RULE + n: t for n, t in strategy.memory.items()} | {ERROR + n: t for n, t in strategy.link.error.items()}
    if not memory:
        return ""
    step = strategy.order.step.name
    write_tensors(folder.memory(step, number), memory)
    folder.memory(step, number - 2).unlink(missing_ok=True)
    return tensors_digest(memory)


# --------------------------------------------------------------------------------------------------------- one round


def _call_roll(federation: Federation, strategy: AdapterStrategy, ledger: Ledger, number: int) -> Traffic:
    """Who takes part in this round: newcomers join, those that left or are suspended are not asked.

    Returns the bytes of asking newcomers who they are.
    """
    ledger.refresh()
    joined = join(federation, strategy.order, known=strategy.cases)
    for center in joined.training:
        counts = joined.counts[center]
        came_back = center in strategy.nodes
        strategy.admit(
            center,
            node=federation.nodes[center],
            cases=strategy.cases[center] if came_back else counts["train"],
            validation=counts.get("validation", 0),
        )
        step = strategy.order.step.name
        event = {"step": step, "round": number, "center": center, "counts": counts, "came_back": came_back}
        ledger.append("center_joined", event)
    strategy.resting = _resting(federation, strategy, ledger)
    strategy.suspended = _suspended(strategy, ledger)
    return joined.bytes


def _resting(federation: Federation, strategy: AdapterStrategy, ledger: Ledger) -> dict[str, str]:
    here = federation.connected()
    out = {center: LEFT for center in strategy.nodes if center not in here}
    return out | dict.fromkeys(_suspended(strategy, ledger) & set(strategy.nodes), SUSPENDED)


def _suspended(strategy: AdapterStrategy, ledger: Ledger) -> set[str]:
    """The step's centers that are suspended: those that it names, those that enrolled and those refused for it."""
    step = strategy.order.step
    refused = [
        c
        for e in ledger.events("step_started", step=step.name)[-1:]
        for c, why in e["refused"].items()
        if why == SUSPENDED
    ]
    own = {*step.centers, *strategy.nodes, *refused}
    return own & set(suspended(ledger, limit=step.federation.guards.strikes))


def _one_round(
    federation: Federation, strategy: AdapterStrategy, task: Task, number: int, state: State
) -> tuple[State, dict[str, Any]]:
    step, started = strategy.order.step, time.perf_counter()
    sent = _deliver(federation, strategy, strategy.training_orders(number, state))
    trained_at = time.perf_counter()
    new = strategy.aggregate(number, sent.messages)
    trained, aggregated_at = strategy.outcome, time.perf_counter()
    traffic = sent.bytes
    state = state if new is None else new

    validation: dict[str, Any] = {"metric": _metric(strategy, task), "pooled": None, "loss": None, "centers": {}}
    scored = Outcome()
    if new is not None and (number % step.selection.every == 0 or number == step.rounds):
        delivery, validation = _validated(federation, strategy, task, number, state)
        traffic, scored = added(traffic, delivery.bytes), strategy.outcome
    validated_at = time.perf_counter()
    return state, {
        "step": step.name,
        "round": number,
        "void": new is None,
        "why_void": trained.void,
        "state_hash": tensors_digest(state),
        "start_fingerprint": trained.start_fingerprint,
        "train": {center: _train_row(reply, trained) for center, reply in trained.accepted.items()},
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


def _deliver(federation: Federation, strategy: AdapterStrategy, messages: list[Message]) -> Delivery:
    names = {node: center for center, node in strategy.nodes.items()}
    return federation.deliver(messages, names=names, timeout_s=strategy.order.step.federation.deadline_s)


def _validated(
    federation: Federation, strategy: AdapterStrategy, task: Task, number: int, state: State
) -> tuple[Delivery, dict[str, Any]]:
    delivery = _deliver(federation, strategy, strategy.validation_orders(number, state))
    strategy.aggregate_evaluate(number, delivery.messages)
    return delivery, _validation(strategy, task, _metric(strategy, task))


def _metric(strategy: AdapterStrategy, task: Task) -> str:
    return strategy.order.step.selection.metric or task.primary


def _told(rejected: dict[str, str]) -> str:
    return ", ".join(f"{center}: {code}" for center, code in sorted(rejected.items()))


def value_of(task: Task, sums: Sums, metric: str) -> float | None:
    """A metric from summed sums; ``loss`` is the mean loss per case."""
    if metric == "loss":
        cases = float(sums.get("fit.cases", 0.0))
        return float(sums["fit.loss"]) / cases if cases else None
    own = {name: value for name, value in sums.items() if not name.startswith("fit.")}
    return task.metrics(own).get(metric) if own else None


def _validation(strategy: AdapterStrategy, task: Task, metric: str) -> dict[str, Any]:
    """The round's value: of the pooled sums, or the median of the centers' values where one must not decide alone."""
    replies = {c: reply.sums for c, reply in strategy.outcome.accepted.items() if reply.sums}
    centers = {c: value_of(task, sums, metric) for c, sums in replies.items()}
    pooled = strategy.outcome.sums
    robust = strategy.order.step.federation.guards.validation == "median"

    def summed(name: str) -> float | None:
        if not robust:
            return value_of(task, pooled, name) if pooled else None
        own = [value for sums in replies.values() if (value := value_of(task, sums, name)) is not None]
        return statistics.median(own) if own else None

    return {"metric": metric, "pooled": summed(metric), "loss": summed("loss"), "centers": centers}


def _train_row(reply: Any, outcome: Outcome) -> dict[str, Any]:
    cases = max(float(reply.sums["fit.cases"]), 1.0)
    return {
        "loss": float(reply.sums["fit.loss"]) / cases,
        "cases": reply.counts["cases"],
        "steps": reply.counts["batches"],
        "skipped": reply.counts.get("skipped", 0),
        "seconds": round(reply.seconds, 3),
        "fingerprint": outcome.fingerprints[reply.center],
    }
