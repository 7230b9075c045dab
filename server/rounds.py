"""The round loop of one step: train, aggregate, validate, checkpoint; any first round, so that a run can resume."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from flwr.app import ConfigRecord, Message
from safetensors import SafetensorError
from safetensors.torch import load_file

from common.backbones.base import tensors_digest
from common.errors import RoundFailed
from common.files import write_tensors
from common.ledger import Ledger
from common.orders import State, Sums
from common.tasks import Task
from common.wire import content_bytes, pack_state, unpack_state
from server.evaluation import LOWER_IS_BETTER
from server.federation import Federation
from server.folder import RunFolder
from server.narration import Narrator
from server.strategy import AdapterStrategy


def run_rounds(
    federation: Federation,
    strategy: AdapterStrategy,
    task: Task,
    *,
    folder: RunFolder,
    ledger: Ledger,
    narrator: Narrator,
) -> tuple[State, int]:
    """Run the step's remaining rounds and return the state that its validation rule keeps, with its round."""
    step = strategy.order.step
    finished = ledger.events("round_finished", step=step.name)
    state = load_checkpoint(folder, step.name, finished[-1]) if finished else strategy.order.state
    for number in range(len(finished) + 1, step.rounds + 1):
        state, event = _one_round(federation, strategy, task, number, state)
        write_tensors(folder.checkpoint(step.name, number), state)
        ledger.append("round_finished", event)
        narrator.round_finished(event, of=step.rounds)
    kept = kept_round(ledger.events("round_finished", step=step.name))
    return load_checkpoint(folder, step.name, kept), kept["round"]


def kept_round(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """The round with the best pooled validation value, the latest of equals; the last if none has a value."""
    valued = [event for event in rounds if event["validation"]["pooled"] is not None]
    if not valued:
        return rounds[-1]
    sign = -1.0 if valued[0]["validation"]["metric"] in LOWER_IS_BETTER else 1.0
    return max(valued, key=lambda event: (sign * event["validation"]["pooled"], event["round"]))


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


def _one_round(
    federation: Federation, strategy: AdapterStrategy, task: Task, number: int, state: State
) -> tuple[State, dict[str, Any]]:
    step = strategy.order.step
    strategy.order = replace(strategy.order, state=state)
    arrays, started = pack_state(state), time.perf_counter()

    messages = list(strategy.configure_train(number, arrays, ConfigRecord(), federation.grid))
    replies = list(federation.grid.send_and_receive(messages, timeout=step.federation.deadline_s))
    trained_at = time.perf_counter()
    new_arrays, _ = strategy.aggregate_train(number, replies)
    trained, aggregated_at = strategy.outcome, time.perf_counter()
    if not trained.accepted:
        raise RoundFailed(
            f"Step '{step.name}', round {number}: no center's update can be used ({_told(trained.rejected)}). The "
            "reasons are in the centers' own logs; start the same command again to repeat this round."
        )
    traffic = _traffic(strategy, messages, replies)
    if new_arrays is not None:
        state = unpack_state(new_arrays)

    validation: dict[str, Any] = {"metric": step.selection.metric or task.primary, "pooled": None, "centers": {}}
    if number % step.selection.every == 0 or number == step.rounds:
        messages = list(strategy.configure_evaluate(number, pack_state(state), ConfigRecord(), federation.grid))
        replies = list(federation.grid.send_and_receive(messages, timeout=step.federation.deadline_s))
        strategy.aggregate_evaluate(number, replies)
        traffic = _added(traffic, _traffic(strategy, messages, replies))
        validation = _validation(strategy, task, validation["metric"])
    validated_at = time.perf_counter()
    busy = max((reply.seconds for reply in trained.accepted.values()), default=0.0)
    return state, {
        "step": step.name,
        "round": number,
        "void": new_arrays is None,
        "state_hash": tensors_digest(state),
        "train": {center: _train_row(reply) for center, reply in trained.accepted.items()},
        "validation": validation,
        "bytes": traffic,
        "failed": {**trained.rejected, **strategy.outcome.rejected},
        "seconds": {
            "train": round(trained_at - started, 4),
            "aggregate": round(aggregated_at - trained_at, 4),
            "validate": round(validated_at - aggregated_at, 4),
        },
        "slowest_center_s": round(busy, 4),
    }


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
    centers = {c: value_of(task, reply.sums, metric) for c, reply in strategy.outcome.accepted.items() if reply.sums}
    pooled = strategy.outcome.sums
    return {
        "metric": metric,
        "pooled": value_of(task, pooled, metric) if pooled else None,
        "loss": value_of(task, pooled, "loss") if pooled else None,
        "centers": centers,
    }


def _train_row(reply: Any) -> dict[str, Any]:
    cases = max(float(reply.sums["fit.cases"]), 1.0)
    return {
        "loss": float(reply.sums["fit.loss"]) / cases,
        "cases": reply.counts["cases"],
        "steps": reply.counts["batches"],
        "skipped": reply.counts.get("skipped", 0),
        "seconds": round(reply.seconds, 3),
    }


def _traffic(strategy: AdapterStrategy, sent: list[Message], replies: list[Message]) -> dict[str, dict[str, int]]:
    names = {node: center for center, node in strategy.nodes.items()}
    traffic = {names[m.metadata.dst_node_id]: {"up": 0, "down": content_bytes(m.content)} for m in sent}
    for reply in replies:
        if not reply.has_error() and reply.metadata.src_node_id in names:
            traffic[names[reply.metadata.src_node_id]]["up"] += content_bytes(reply.content)
    return traffic


def _added(a: dict[str, dict[str, int]], b: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
    return {c: {way: a.get(c, {}).get(way, 0) + b.get(c, {}).get(way, 0) for way in ("up", "down")} for c in {**a, **b}}
