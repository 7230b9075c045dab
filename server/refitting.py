"""After a withdrawal: steps are fitted again without the center that left, and their scores are asked for anew.

Both happen when the run is started next, for both need the remaining centers. Until then the ledger's older scores are
those of a model that is no longer in use, and results and report say so instead of showing them
(`server.report.reading.superseded`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from common.config.step import Step
from common.model.adapted import AdaptedModel
from common.protocol.messages import Order, State
from server.centers.enrolment import Enrolment, as_recorded, enrol, known_of
from server.centers.quarantine import record_rejected
from server.centers.roster import withdrawn
from server.coordinator import Coordinator
from server.evaluation.after_step import calibrated, learned, score_all
from server.learning.exact.choice import judge_of
from server.learning.exact.fit import NewtonFit
from server.learning.exact.noised import NoisedFit
from server.learning.exact.questions import Asking
from server.learning.exact.summed import SummedAsking
from server.learning.start import commit, starting_state
from server.learning.withdraw import centers_of, to_refit, to_rescore


def after_withdrawals(coordinator: Coordinator) -> None:
    """Refit what waits for it, then score what was fitted again."""
    for name in to_refit(coordinator.ledger):
        refit_step(coordinator, coordinator.run.steps[name])
    for name in to_rescore(coordinator.ledger):
        rescore_step(coordinator, coordinator.run.steps[name])


def fit_exactly(coordinator: Coordinator, order: Order, centers: Sequence[str]) -> tuple[State, int]:
    """The state and the number of questions of a Newton step over these centers."""
    layout = AdaptedModel(coordinator.bases.backbone_for(order.step), order.step, seed=order.seed).exact_layout
    is_secure = order.step.federation.secure_aggregation
    asking = (SummedAsking if is_secure else Asking)(
        coordinator.federation,
        order,
        folder=coordinator.folder,
        ledger=coordinator.ledger,
        narrator=coordinator.narrator,
    )
    if order.step.privacy is not None:
        return NoisedFit(asking, layout).run(centers)
    return NewtonFit(asking, layout, judge_of(coordinator.scorer, order)).run(centers)


def refit_step(coordinator: Coordinator, step: Step) -> None:
    """Fit a Newton step again without the centers that have left; its lineage then points at the result."""
    order = coordinator.order(step)
    enrolment = enrol_for(coordinator, order)
    started = coordinator.ledger.events("step_started", step=step.name)[-1]
    order.state, order.known = starting_state(coordinator, step), known_of(started)
    wanted = centers_of(coordinator.ledger, step.name)
    enrolment.training = [center for center in enrolment.training if center in wanted]
    state, _ = fit_exactly(coordinator, order, enrolment.training)
    key = commit(coordinator, step, state, enrolment.training).key
    left = withdrawn(coordinator.ledger)
    event = {"step": step.name, "without": left[-1], "key": key, "centers": enrolment.training}
    coordinator.ledger.append("step_refitted", {**event, "bytes": enrolment.bytes})
    coordinator.narrator.say(f"{step.name}: fitted again without {', '.join(left)}, adapter {key[:12]}")


def rescore_step(coordinator: Coordinator, step: Step) -> None:
    """Ask the remaining centers for the scores and curves of a step's head, read by what they alone know."""
    ledger = coordinator.ledger
    [finished] = [event for event in learned(ledger) if event["step"] == step.name]
    enrolment = enrol_for(coordinator, coordinator.order(step))
    remaining = [center for center in finished["evaluated_at"] if center not in set(withdrawn(ledger))]
    known = calibrated(coordinator, step, centers_of(ledger, step.name), finished["kept_round"], known=enrolment.known)
    event: dict[str, Any] = {
        "step": step.name,
        "task": finished["task"],
        "lineage": finished["lineage"],
        "key": coordinator.bank.head(finished["lineage"]),
        "without": withdrawn(ledger),
        "evaluated_at": remaining,
        "threshold": float(known.pop("threshold")) if "threshold" in known else None,
        "known": as_recorded(known),
    }
    found = score_all(coordinator, finished | event, remaining, label=step.name)
    event |= {"scores": found.rows, "curves": found.curves, "bytes": enrolment.bytes}
    event |= {"subgroups": found.subgroups} if found.subgroups else {}
    ledger.append("step_rescored", event)
    coordinator.narrator.say(f"{step.name}: scored again at {', '.join(remaining) or 'no center'}")


def enrol_for(coordinator: Coordinator, order: Order) -> Enrolment:
    """The step's centers, without those that may not train or have left the run."""
    kept_out = coordinator.roster.kept_from_training(limit=order.step.federation.guards.strikes)
    enrolment = enrol(coordinator.federation, order, kept_out=kept_out)
    for center, rejection in sorted(enrolment.rejected.items()):
        record_rejected(coordinator.ledger, center, rejection, step=order.step.name, action="describe")
    return enrolment
