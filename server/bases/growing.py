"""Growing the base: a step that later steps stand on is merged once, at its end, and the new base is announced."""

from __future__ import annotations

from typing import Any

from common.config.methods.standing import teachers_of
from common.protocol.messages import STAGE
from server.bases.grown import GROWN
from server.centers.federation import Exchange
from server.coordinator import Coordinator


def is_needed(coordinator: Coordinator, name: str) -> bool:
    """Whether a later step of the run stands on this one, or is taught by it."""
    return any(name in (step.stands_on, *teachers_of(step)) for step in coordinator.run.steps.values())


def grow_base(coordinator: Coordinator, name: str) -> None:
    """Merge a finished step into the base that it stood on, tell the centers, and write it to the ledger, once.

    The key is the one that the step committed: rolling its lineage back later changes no base. A run killed before the
    ledger has it merges again, to the same digest.
    """
    ledger = coordinator.ledger
    if not is_needed(coordinator, name) or ledger.events(GROWN, step=name):
        return
    key = _key_of(coordinator, name)
    before = coordinator.bank.entry(key).base
    digest, ref = coordinator.bases.grow(key)
    told = _announced(coordinator, key)
    event: dict[str, Any] = {
        "step": name,
        "key": key,
        "from": before,
        "base": digest,
        "root": ref.root,
        "merged": list(ref.merged),
        "centers": {center: reply.code for center, reply in sorted(told.replies.items())},
        "bytes": told.bytes,
    }
    ledger.append("base_grown", event)
    if digest == before:
        coordinator.narrator.say(f"{name}: its start was kept, so the frozen model stays {digest[:12]}")
        return
    same = sum(reply.is_usable for reply in told.replies.values())
    coordinator.narrator.say(
        f"{name}: merged into the frozen model, which is now {digest[:12]} ({len(ref.merged)} stages); {same} of "
        f"{len(told.replies)} centers made the same"
        + "".join(f"; {center}: {code}" for center, code in sorted(told.failed.items()))
    )


def _announced(coordinator: Coordinator, key: str) -> Exchange:
    """The finished step, sent to every center that is there; who lacks an earlier one gets that first."""
    federation = coordinator.federation
    here = coordinator.roster.askable(sorted(federation.connected()))
    [order] = coordinator.stage_orders([key])
    return federation.ask(here, order, STAGE) if here else Exchange()


def _key_of(coordinator: Coordinator, name: str) -> str:
    """The entry that a step of this run committed; of a run that is continued, its lineage's head there."""
    finished = coordinator.ledger.events("step_finished", step=name)
    if finished:
        return str(finished[0]["key"])
    return coordinator.bank.head(name)
