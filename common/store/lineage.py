"""A lineage that several steps wrote: from which entry each part of a task comes, and the task's state as it stands.

Tasks share a part that they declare alike and that has the same tensors. What reads a task's answer out (its head, a
decoder, a linear part) is shared only by tasks that answer the same question; every other part is the task's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor

from common.config.adapter import role_of
from common.config.step import Step
from common.model.state import parts_of
from common.protocol.messages import State
from common.store.bank import AdapterBank, Entry
from common.tasks import question_of

READS_OUT = frozenset({"decoder", "linear", "voxel_linear"})  # roles; a task's head is no declared part at all


def parts_in_use(bank: AdapterBank, *, head: str, own: str) -> dict[str, str]:
    """Part -> key of the entry that it comes from: the newest one from the lineage's head back that shares it.

    Args:
        head: key of the lineage's head.
        own: key of the entry that the task's own step committed; whatever no later step shares comes from there.
    """
    mine = bank.entry(own)
    forms = {part: _form(state) for part, state in parts_of(bank.get(own)).items()}
    found: dict[str, str] = {}
    for entry in _back_from(bank, head, lineage=mine.lineage):
        same_base = entry.key != own and entry.base == mine.base  # what is learned on another base is of no use here
        theirs = parts_of(bank.get(entry.key)) if same_base else {}
        for part in forms.keys() - found.keys():
            if entry.key == own or (part in theirs and _is_shared(mine.step, entry.step, part, theirs, forms)):
                found[part] = entry.key
        if entry.key == own or len(found) == len(forms):
            break
    return {part: found.get(part, own) for part in sorted(forms)}


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


def _is_shared(
    mine: Step, other: Step, part: str, theirs: Mapping[str, State], forms: Mapping[str, dict[str, tuple]]
) -> bool:
    one, two = mine.adapter.parts.get(part), other.adapter.parts.get(part)
    reads_out = one is None or role_of(one) in READS_OUT
    same_question = question_of(mine.task) == question_of(other.task)
    return one == two and (same_question or not reads_out) and _form(theirs[part]) == forms[part]


def _form(state: Mapping[str, Tensor]) -> dict[str, tuple]:
    return {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in state.items()}
