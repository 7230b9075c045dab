"""Where a step starts from and what it leaves: its lineage's adapter in the bank, before and after its rounds."""

from __future__ import annotations

from collections.abc import Sequence

from common.config.methods import asked_of_kind
from common.config.run import Run
from common.config.step import Step
from common.errors import BankError
from common.model.adapted import AdaptedModel
from common.model.merging import mergeable_parts
from common.model.state import what_fits
from common.protocol.declaration import made_from_seed
from common.protocol.messages import State
from common.store.bank import Entry
from server.coordinator import Coordinator
from server.methods.merging import merged
from server.run.continued import models_taken
from server.run.probe import probe_output


def starting_state(coordinator: Coordinator, step: Step) -> State:
    """Parts of the step named in ``starts_from`` where they exist there, or several steps' parts merged, where a method
    says so; seeded initial values for the others."""
    state = AdaptedModel(coordinator.bases.backbone_for(step), step, seed=coordinator.run.seed).state()
    for spec in asked_of_kind(step, "merge"):
        return merged(spec, step, state, _sources(coordinator, step))
    key = start_key(coordinator, step)
    if key is None:
        return state
    earlier = _not_merged(coordinator, step, key)
    shared = what_fits(earlier, state)
    reshaped = sorted({name.partition("/")[0] for name in earlier.keys() & state.keys() - shared.keys()})
    if reshaped:
        earlier_name = step.starts_from or step.writes
        changed = f"{', '.join(reshaped)} of '{earlier_name}' have other shapes in this step and start anew"
        coordinator.narrator.say(f"          {changed}")
    return {**state, **shared}


def _not_merged(coordinator: Coordinator, step: Step, key: str) -> State:
    """The tensors of an earlier adapter that are not in the step's base already: an update would count twice there."""
    earlier = coordinator.bank.get(key)
    if key not in coordinator.bases.ref_for(step).merged:
        return earlier
    inside = mergeable_parts(coordinator.bank.entry(key).step)
    return {name: tensor for name, tensor in earlier.items() if name.partition("/")[0] not in inside}


def start_key(coordinator: Coordinator, step: Step) -> str | None:
    """The adapter that a step starts from, as it stood when the step began: heads may have moved since, by the step's
    own commit before a kill, by a promotion or a rollback. None: it starts from the seed."""
    begun = coordinator.ledger.events("step_started", step=step.name)
    if begun and "start_key" in begun[0]:
        return begun[0]["start_key"]
    if taken := models_taken(coordinator.ledger).get(step.name):
        return str(taken["key"])
    lineage = step.starts_from or (step.writes if step.writes in coordinator.bank.heads() else None)
    return None if lineage is None else coordinator.bank.head(lineage_of(coordinator.run, lineage))


def seeded_names(coordinator: Coordinator, step: Step, start: State) -> list[str]:
    """Tensors of the start that need not travel, because no round changes them and the seed makes them anywhere."""
    initial = AdaptedModel(coordinator.bases.backbone_for(step), step, seed=coordinator.run.seed).state()
    return made_from_seed(start, initial, step)


def commit(coordinator: Coordinator, step: Step, state: State, centers: Sequence[str]) -> Entry:
    """Store what a step has learned.

    Args:
        centers: those that it was learned from.
    """
    base = coordinator.bases.digest_for(step)
    probe = probe_output(coordinator.bases.backbone_of(base), step, state, seed=coordinator.run.seed)
    parent = start_key(coordinator, step)
    parents = [parent] if parent else merged_keys(coordinator, step)
    return coordinator.bank.commit(step, state, base=base, parents=parents, centers=centers, probe=probe)


def _sources(coordinator: Coordinator, step: Step) -> list[tuple[Step, State]]:
    """The steps to merge, with what they left. Raises BankError where one was learned on another frozen model."""
    base, entries = (
        coordinator.bases.digest_for(step),
        [coordinator.bank.entry(k) for k in merged_keys(coordinator, step)],
    )
    foreign = [entry.step.name for entry in entries if entry.base != base]
    if foreign:
        raise BankError(
            f"Step '{step.name}' merges {', '.join(foreign)}, learned on another frozen model than its own "
            f"({base[:12]}): their updates do not add up. Merge steps that stand on one base."
        )
    return [(entry.step, coordinator.bank.get(entry.key)) for entry in entries]


def merged_keys(coordinator: Coordinator, step: Step) -> list[str]:
    """What the steps that a step merges have left, as the ledger says; none where it merges none."""
    names = [name for spec in asked_of_kind(step, "merge") for name in spec.of]
    return [coordinator.ledger.events("step_finished", step=name)[-1]["key"] for name in names]


def lineage_of(run: Run, name: str) -> str:
    return (run.steps[name].writes or name) if name in run.steps else name
