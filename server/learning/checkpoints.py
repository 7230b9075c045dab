"""What a round leaves on disk: its state, and what the rule and the links remember; read back when a run resumes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file

from common.backbones.base import tensors_digest
from common.errors import RoundFailed
from common.files import write_tensors
from common.protocol.messages import State
from server.learning.strategy import AdapterStrategy
from server.run.folder import RunFolder

REMEDY = "restore it from a backup, or start a new run folder."
RULE, ERROR = "rule/", "error/"  # in a memory file: what the rule remembers, what the link still owes


def load_checkpoint(folder: RunFolder, step: str, event: dict[str, Any]) -> State:
    """A round's state, checked against the hash in the ledger."""
    path = folder.checkpoint(step, event["round"])
    later = [kept for kept in folder.checkpoints(step) if kept.name > path.name]
    if later and not path.exists():
        raise RoundFailed(
            f"{path} was dropped when {later[-1].name} was written: the ledger ends at an earlier round, it was rolled "
            "back. Restore the newest ledger.jsonl, or start a new run folder."
        )
    return _checked(path, event["state_hash"])


def load_start(folder: RunFolder, step: str, event: dict[str, Any]) -> State:
    """The start that a step's methods made, checked against the hash in the ledger."""
    return _checked(folder.start(step), event["state_hash"])


def _checked(path: Path, digest: str) -> State:
    state = _read(path)
    if tensors_digest(state) != digest:
        raise RoundFailed(f"{path} does not have the hash in the ledger; {REMEDY}")
    return state


def _read(path: Path) -> State:
    if not path.exists():
        raise RoundFailed(f"{path} is missing; {REMEDY}")
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise RoundFailed(f"{path} cannot be read ({error}); {REMEDY}") from error


def keep_best_and_last(folder: RunFolder, step: str, *, best: int, last: int) -> None:
    """Drop a step's checkpoints but those of the best round so far and of the last two."""
    for path in folder.checkpoints(step):
        number = int(path.name.removeprefix("round-").partition(".")[0])
        if number < last - 1 and number != best:
            path.unlink(missing_ok=True)


def recall(strategy: AdapterStrategy, folder: RunFolder, finished: list[dict[str, Any]]) -> None:
    """What the strategy knew after the last finished round."""
    for event in finished:
        if event["void"]:
            continue
        for center, row in event["train"].items():
            strategy.used.setdefault(center, []).append(event["round"])
            strategy.seen[row["fingerprint"]] = event["start_fingerprint"]
    step, last = strategy.order.step.name, finished[-1]
    if not last.get("memory_hash"):
        return
    path = folder.memory(step, last["round"])
    memory = _read(path)
    if tensors_digest(memory) != last["memory_hash"]:
        raise RoundFailed(f"{path} does not have the hash in the ledger; {REMEDY}")
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
