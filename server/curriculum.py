"""The curriculum loop: enrol, start, rounds, commit, evaluate, ledger; step after step, skipping what is finished."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from typing import Any

from common.backbones.base import tensors_digest
from common.config.limits.budget import spent
from common.config.options import STATISTICS
from common.config.step import Step
from common.model.state import bytes_of, parts_of
from common.privacy.scores import scored_task
from common.protocol.messages import Order, State
from common.store.bank import Entry
from server.bases.growing import grow_base
from server.centers.enrolment import Enrolment, as_recorded, known_of
from server.centers.roster import rounds_of
from server.coordinator import Coordinator
from server.evaluation.after_step import calibrated, evaluate_all, learned
from server.evaluation.paired import compare
from server.learning.cuts import fix_cuts
from server.learning.rounds import run_rounds
from server.learning.start import commit, seeded_names, start_key, starting_state
from server.learning.strategy import AdapterStrategy
from server.learning.withdraw import centers_of
from server.methods import brought, remarks
from server.methods.asking import before, keep
from server.methods.base import Begun
from server.methods.opening import opened
from server.refitting import after_withdrawals, enrol_for, fit_exactly
from server.run.begin import begin
from server.run.continued import models_taken
from server.run.length import with_its_rounds
from server.run.unfinished import is_uncompared


def run_curriculum(coordinator: Coordinator) -> None:
    """Run every step that the ledger does not already hold."""
    begin(coordinator)
    for name in coordinator.run.steps:
        if coordinator.run.steps[name].task.kind == STATISTICS:
            from server.statistics.asking import gather  # scipy's distributions take half a second

            gather(coordinator, coordinator.run.steps[name])
            continue
        step = _settled(coordinator, name)
        order = coordinator.order(step)
        fix_cuts(step, order, coordinator.federation, coordinator.ledger, say=coordinator.narrator.say)
        if coordinator.ledger.finished(name):
            coordinator.narrator.say(f"{name}: finished before, skipped")
        else:
            run_step(coordinator, step)
        if is_uncompared(step, coordinator.ledger):
            compare(coordinator, step)
        grow_base(coordinator, name)
    after_withdrawals(coordinator)


def run_step(coordinator: Coordinator, step: Step) -> None:
    """One step, from enrolment to its row in the ledger."""
    began = time.perf_counter()
    order = coordinator.order(step)
    task = scored_task(step)
    enrolment = enrol_for(coordinator, order)
    enrolment.known |= known_of(models_taken(coordinator.ledger).get(step.name, {}))
    step = _settled(coordinator, step.name, enrolment)
    order = replace(order, step=step)
    begins = replace(order, state=starting_state(coordinator, step))
    start = opened(coordinator, begins, enrolment.training, key=start_key(coordinator, step))
    event = _step_started(coordinator, step, enrolment, start)
    order.state, order.known = start, known_of(event)
    scores = coordinator.scorer.score(order, task, enrolment.evaluating, label="start")
    coordinator.ledger.append("start_scores", {"step": "start", "task": step.name, "scores": scores})

    state, kept = train_step(coordinator, order, enrolment) if step.rounds > 0 else (start, 0)
    is_fit = step.federation.kind == "newton"  # whose enrolment holds whom the fit has not lost
    used = enrolment.training if is_fit else coordinator.roster.contributed(step.name, upto=kept)
    entry = commit(coordinator, step, state, used)
    if step.rounds > 0:
        ended = replace(order, state=state, round=kept)
        keep(coordinator, ended, entry, enrolment.training, key=start_key(coordinator, step))
    _step_finished(coordinator, step, entry, kept, enrolment, began=began)


def train_step(coordinator: Coordinator, order: Order, enrolment: Enrolment) -> tuple[State, int]:
    """The step's rounds from the order's state; the state that they keep, with its round."""
    step, task = order.step, scored_task(order.step)
    if step.federation.kind == "newton":
        found = fit_exactly(coordinator, order, enrolment.training)
        enrolment.training = centers_of(coordinator.ledger, step.name)
        return found
    seeded = seeded_names(coordinator, step, order.state)
    earlier = before(coordinator.bank, step, start_key(coordinator, step))
    begun = Begun(step, order.state, order.base, frozenset(seeded))
    brings = brought(begun, earlier)
    for said in remarks(begun, brings):
        coordinator.narrator.say(f"          {said}")
    strategy = AdapterStrategy(
        order,
        nodes={center: coordinator.federation.nodes[center] for center in enrolment.training},
        cases={center: enrolment.counts[center]["train"] for center in enrolment.training},
        task=task,
        validation={center: enrolment.counts[center].get("validation", 0) for center in enrolment.training},
        seeded=seeded,
        brought=brings,
        base_weights=_base_weights(coordinator, step),
    )
    strategy.summary()
    return run_rounds(
        coordinator.federation,
        strategy,
        task,
        folder=coordinator.folder,
        ledger=coordinator.ledger,
        narrator=coordinator.narrator,
    )


def _base_weights(coordinator: Coordinator, step: Step) -> State:
    """The frozen weights that DoRA's exact stack reads the norms of; none for a step without."""
    if not any(spec.kind == "lora" and spec.dora for spec in step.adapter.parts.values()):
        return {}
    from common.adapters.lora import frozen_weights  # peft takes seconds to import

    return frozen_weights(coordinator.bases.backbone_for(step), step.adapter.parts)


def _settled(coordinator: Coordinator, name: str, enrolment: Enrolment | None = None) -> Step:
    """The run's step with its rounds, which a budget leaves open until centers have enrolled."""
    steps = coordinator.run.steps
    steps[name] = with_its_rounds(steps[name], coordinator.ledger, enrolment)
    return steps[name]


def _step_started(coordinator: Coordinator, step: Step, enrolment: Enrolment, start: State) -> dict[str, Any]:
    begun = coordinator.ledger.events("step_started", step=step.name)
    if begun and (left := sorted({*begun[-1]["centers"]} - {*enrolment.training})):
        whys = ", ".join(f"{center} ({enrolment.refused.get(center, 'not asked')})" for center in left)
        coordinator.narrator.say(f"{step.name} goes on without {whys}, which took part; their own logs say why")
    known = begun[0].get("known", {}) if begun else as_recorded(enrolment.known)  # a resumed step goes on as it began
    event = coordinator.ledger.append(
        "step_started",
        {
            "step": step.name,
            "centers": enrolment.training,
            "evaluated_at": enrolment.evaluating,
            "refused": enrolment.refused,
            "start_key": start_key(coordinator, step),
            "start_hash": tensors_digest(start),
            "parts": {part: sum(t.numel() for t in own.values()) for part, own in parts_of(start).items()},
            "adapter_bytes": bytes_of(start.values()),
            "counts": enrolment.counts,
            "known": known,
            "bytes": enrolment.bytes,
            **({"rounds": step.rounds} if step.budget else {}),
        },
    )
    coordinator.narrator.step_started(event)
    return event


def _step_finished(
    coordinator: Coordinator, step: Step, entry: Entry, kept: int, enrolment: Enrolment, *, began: float
) -> None:
    started = coordinator.ledger.events("step_started", step=step.name)[0]
    known = calibrated(coordinator, step, enrolment.training, kept, known=known_of(started))
    event: dict[str, Any] = {
        "step": step.name,
        "task": step.name,
        "region": step.region,
        "lineage": entry.lineage,
        "key": entry.key,
        "kept_round": kept,
        "evaluated_at": enrolment.evaluating,
        "threshold": float(known.pop("threshold")) if "threshold" in known else None,
        "known": as_recorded(known),
    }
    found = evaluate_all(coordinator, [*learned(coordinator.ledger), event], label=step.name)
    event |= {"scores": found["scores"], "curves": found["curves"], "primary": found["primary"]}
    event |= {"subgroups": found["subgroups"]} if found["subgroups"] else {}
    event["spent"] = asdict(spent(rounds_of(coordinator.ledger, step.name)))
    event["seconds"] = round(time.perf_counter() - began, 3)
    coordinator.narrator.step_finished(coordinator.ledger.append("step_finished", event))
