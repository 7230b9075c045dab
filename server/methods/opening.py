"""A step's start that its methods make: its centers are asked before the first round; what is made is kept on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from common.backbones.base import tensors_digest
from common.config.methods import KEEPING, OPENING
from common.config.step import Step
from common.files import write_tensors
from common.protocol.keepsakes import KEEPSAKES, opening
from common.protocol.messages import Order, State
from server.coordinator import Coordinator
from server.learning.checkpoints import load_start
from server.methods import ends_of
from server.methods.asking import answers, before
from server.methods.base import Begun


def opened(coordinator: Coordinator, order: Order, centers: Sequence[str], *, key: str | None) -> State:
    """The step's start as its methods make it, the order's own where none does; made once, then read.

    Args:
        order: with the state that the step would start from.
        key: of the adapter that this is of.

    Raises:
        RoundFailed: fewer centers than the quorum answered; the same command asks again.
        KeepsakeMissing: the start's own step kept nothing for one of the methods.
    """
    step, state = order.step, order.state
    kinds = opening(step)
    if not kinds:
        return state
    made = coordinator.ledger.events("start_made", step=step.name)
    if made:
        return load_start(coordinator.folder, step.name, made[-1])
    earlier, ends = before(coordinator.bank, step, key), ends_of(step)
    asked = replace(order, step=_asking(step), subset=KEEPSAKES)
    told, event = answers(coordinator, asked, centers, about="cannot begin yet")
    for kind in kinds:
        state = ends[kind].opens(Begun(step, state, order.base), told, earlier[kind])
    write_tensors(coordinator.folder.start(step.name), state)
    found = {**event, "kinds": kinds, "state_hash": tensors_digest(state), "cases": int(told["fit.cases"])}
    coordinator.ledger.append("start_made", found)
    return state


def _asking(step: Step) -> Step:
    """The step with no other sums at its end than those that make its start."""
    return replace(step, methods=[spec for spec in step.methods if spec.kind not in KEEPING - OPENING])
