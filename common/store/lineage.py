"""A lineage that several steps wrote: from which entry each part of a task comes, and the task's state as it stands.

Tasks share a part that they declare alike and that has the same tensors. What reads a task's answer out (its head, a
decoder, a linear part) is shared only by tasks that answer the same question, or that ask by words; every other part is
the task's own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict

from common.config.adapter import role_of
from common.config.step import Step
from common.model.state import parts_of
from common.protocol.messages import State
from common.store.bank import AdapterBank, Entry
from common.tasks import question_of

GROUNDING = "grounding"
READS_OUT = frozenset({"decoder", "linear", "voxel_linear"})  # roles; a task's head is no declared part at all


def parts_in_use(bank: AdapterBank, *, head: str, own: str) -> dict[str, str]:
    """Part -> key of the entry that it comes from: the newest one from the lineage's head back that shares it.

    Args:
        head: key of the lineage's head.
        own: key of the entry that the task's own step committed; whatever no later step shares comes from there.
    """
    mine = bank.entry(own)
    wanted = identities(mine.step, bank.get(own), base=mine.base)
    found: dict[str, str] = {}
    for entry in _back_from(bank, head, lineage=mine.lineage):
        theirs = wanted if entry.key == own else identities(entry.step, bank.get(entry.key), base=entry.base)
        for part in wanted.keys() - found.keys():
            if theirs.get(part) == wanted[part]:
                found[part] = entry.key
        if entry.key == own or len(found) == len(wanted):
            break
    return {part: found.get(part, own) for part in sorted(wanted)}


def state_in_use(bank: AdapterBank, *, head: str, own: str) -> State:
    """A task's state as its lineage has it now; the head's own where one step alone writes the lineage."""
    keys = parts_in_use(bank, head=head, own=own)
    states = {key: parts_of(bank.get(key)) for key in sorted(set(keys.values()))}
    return {name: tensor for part, key in keys.items() for name, tensor in states[key][part].items()}


def shared_parts(bank: AdapterBank, *, head: str, own: str) -> list[str]:
    """A task's parts that a later step of its lineage has gone on with."""
    return [part for part, key in parts_in_use(bank, head=head, own=own).items() if key != own]


def _back_from(bank: AdapterBank, head: str, *, lineage: str) -> Iterator[Entry]:
    """The entries of a lineage from its head back, each the start of the one before."""
    key: str | None = head
    while key is not None:
        entry = bank.entry(key)
        if entry.lineage != lineage:
            return
        yield entry
        key = entry.parents[0] if entry.parents else None


def identities(step: Step, state: State, *, base: str) -> dict[str, str]:
    """Part -> what it is, as a digest: steps share a part if it is the same in both.

    The frozen model that it was learned on, its name, its declaration, its tensors' shapes and types; of what reads an
    answer out, the question too.
    """
    return {part: _identity(step, part, own, base) for part, own in parts_of(state).items()}


def _identity(step: Step, part: str, own: State, base: str) -> str:
    spec = step.adapter.parts.get(part)
    reads_out = spec is None or role_of(spec) in READS_OUT
    about = list(question_of(step.task)) if reads_out else []
    about = about[:1] if step.task.kind == GROUNDING else about  # what it looks for is asked in words
    form = [[name, str(tensor.dtype), list(tensor.shape)] for name, tensor in sorted(own.items())]
    text = json.dumps([base, part, None if spec is None else asdict(spec), about, form], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
