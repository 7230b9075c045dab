"""What a round leaves on disk: its state, and what the rule and the links remember; read back when a run resumes."""

from __future__ import annotations

from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file

from common.backbones.base import tensors_digest
from common.errors import RoundFailed
from common.files import write_tensors
from common.protocol.messages import State
from server.learning.strategy import AdapterStrategy
from server.run.folder import RunFolder

RULE, ERROR = "rule/", "error/"  # in a memory file: what the rule remembers, what the link still owes


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


def recall(strategy: AdapterStrategy, folder: RunFolder, finished: list[dict[str, Any]]) -> None:
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


def write_memory(strategy: AdapterStrategy, folder: RunFolder, number: int) -> str:
    """Write what the rule and the link remember; its hash, empty where there is nothing. Only the last two are kept."""
    memory = {RULE + n: t for n, t in strategy.memory.items()} | {ERROR + n: t for n, t in strategy.link.error.items()}
    if not memory:
        return ""
    step = strategy.order.step.name
    write_tensors(folder.memory(step, number), memory)
    folder.memory(step, number - 2).unlink(missing_ok=True)
    return tensors_digest(memory)
