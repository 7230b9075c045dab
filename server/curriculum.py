"""The curriculum loop: enrol, start, rounds, commit, evaluate, ledger; step after step, skipping what is finished."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf

from common.adapters.lora import frozen_weights
from common.backbones import backbone_digest, load_backbone
from common.backbones.base import Backbone
from common.config.load import run_to_yaml
from common.config.run import Run
from common.config.step import Step
from common.errors import ConfigError
from common.files import write_bytes
from common.model.adapted import AdaptedModel
from common.model.state import parts_of, what_fits
from common.protocol.declaration import made_from_seed
from common.protocol.messages import Order, State, Sums
from common.runtime.machine import environment
from common.store.bank import AdapterBank, Entry
from common.store.ledger import Ledger
from common.tasks import build_task, merge_sums
from server.centers.enrolment import Enrolment, enrol
from server.centers.federation import Federation
from server.centers.quarantine import suspended
from server.evaluation.scoring import Scorer
from server.learning.cuts import fix_grid
from server.learning.exact import NewtonFit
from server.learning.rounds import run_rounds
from server.learning.strategy import AdapterStrategy
from server.learning.withdraw import centers_of, to_refit, withdrawn
from server.run.folder import RunFolder, read_config
from server.run.narration import Narrator
from server.run.probe import probe_output
from server.sizes.sizes import released_sizes


class Coordinator:
    """One run's shared things: the frozen model, the bank, the ledger and the federation."""

    def __init__(self, federation: Federation, run: Run, folder: RunFolder, narrator: Narrator):
        self.federation, self.run, self.folder, self.narrator = federation, run, folder, narrator
        torch.set_num_threads(run.runtime.threads)
        self.bank = AdapterBank(folder.bank)
        self.ledger = Ledger(folder.ledger)
        self.backbone: Backbone = load_backbone(run.backbone)
        self.base = backbone_digest(self.backbone)
        self.scorer = Scorer(federation, folder, self.ledger)

    def order(self, step: Step) -> Order:
        """An order for a step, without a state."""
        run = self.run
        return Order(
            step=step,
            seed=run.seed,
            round=0,
            backbone=run.backbone,
            base=self.base,
            split=run.data.split,
            skip_unreadable=run.data.skip_unreadable,
            minimum_cell=run.data.minimum_cell,
            run=self.run_id,
        )

    @property
    def run_id(self) -> str:
        """The run's own id, from its ledger's first line; empty for a run that began before runs had one."""
        started = self.ledger.events("run_started")
        return str(started[0].get("id", "")) if started else ""


def run_curriculum(coordinator: Coordinator) -> None:
    """Run every step that the ledger does not already hold."""
    _begin(coordinator)
    for name, step in coordinator.run.steps.items():
        order = coordinator.order(step)
        fix_grid(step, order, coordinator.federation, coordinator.ledger, say=coordinator.narrator.say)
        if coordinator.ledger.finished(name):
            coordinator.narrator.say(f"{name}: finished before, skipped")
            continue
        run_step(coordinator, step)
    for name in to_refit(coordinator.ledger):
        refit_step(coordinator, coordinator.run.steps[name])


def run_step(coordinator: Coordinator, step: Step) -> None:
    """One step, from enrolment to its row in the ledger."""
    began = time.perf_counter()
    order = coordinator.order(step)
    task = build_task(step.task)
    enrolment = _enrol(coordinator, order)
    start = starting_state(coordinator, step)
    event = _step_started(coordinator, step, enrolment, start)
    order.state, order.known = start, _known(event)
    scores = coordinator.scorer.score(order, task, enrolment.evaluating, label="start")
    coordinator.ledger.append("start_scores", {"step": "start", "task": step.name, "scores": scores})

    state, kept = train_step(coordinator, order, enrolment) if step.rounds > 0 else (start, 0)
    entry = _commit(coordinator, step, state, enrolment)
    _step_finished(coordinator, step, entry, kept, enrolment, began=began)


def train_step(coordinator: Coordinator, order: Order, enrolment: Enrolment) -> tuple[State, int]:
    """The step's rounds from the order's state; the state that they keep, with its round."""
    step, task = order.step, build_task(order.step.task)
    if step.federation.kind == "newton":
        found = fit_exactly(coordinator, order, enrolment.training)
        enrolment.training = centers_of(coordinator.ledger, step.name)
        return found
    strategy = AdapterStrategy(
        order,
        nodes={center: coordinator.federation.nodes[center] for center in enrolment.training},
        cases={center: enrolment.counts[center]["train"] for center in enrolment.training},
        sum_shapes=task.sum_shapes,
        validation={center: enrolment.counts[center].get("validation", 0) for center in enrolment.training},
        seeded=seeded_names(coordinator, step, order.state),
        base_weights=frozen_weights(coordinator.backbone, step.adapter.parts),
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


def fit_exactly(coordinator: Coordinator, order: Order, centers: Sequence[str]) -> tuple[State, int]:
    """The state and the number of questions of a Newton step over these centers."""
    layout = AdaptedModel(coordinator.backbone, order.step, seed=order.seed).linear_layout
    fit = NewtonFit(
        coordinator.federation,
        order,
        layout,
        folder=coordinator.folder,
        ledger=coordinator.ledger,
        narrator=coordinator.narrator,
    )
    return fit.run(centers)


def refit_step(coordinator: Coordinator, step: Step) -> None:
    """Fit a Newton step again without the centers that have left; its lineage then points at the result."""
    order = coordinator.order(step)
    enrolment = _enrol(coordinator, order)
    started = coordinator.ledger.events("step_started", step=step.name)[-1]
    order.state, order.known = starting_state(coordinator, step), _known(started)
    wanted = centers_of(coordinator.ledger, step.name)
    enrolment.training = [center for center in enrolment.training if center in wanted]
    state, _ = fit_exactly(coordinator, order, enrolment.training)
    key = _commit(coordinator, step, state, enrolment).key
    left = withdrawn(coordinator.ledger)
    event = {"step": step.name, "without": left[-1], "key": key, "centers": enrolment.training}
    coordinator.ledger.append("step_refitted", {**event, "bytes": enrolment.bytes})
    coordinator.narrator.say(f"{step.name}: fitted again without {', '.join(left)}, adapter {key[:12]}")


def _enrol(coordinator: Coordinator, order: Order) -> Enrolment:
    """The step's centers without those that have left the run."""
    out = suspended(coordinator.ledger, limit=order.step.federation.guards.strikes)
    enrolment = enrol(coordinator.federation, order, suspended=out)
    for center in withdrawn(coordinator.ledger):
        enrolment.training = [c for c in enrolment.training if c != center]
        enrolment.evaluating = [c for c in enrolment.evaluating if c != center]
        enrolment.refused[center] = "withdrawn"
    return enrolment


def starting_state(coordinator: Coordinator, step: Step) -> State:
    """Parts of the step named in ``starts_from`` where they exist there, seeded initial values for the others."""
    state = AdaptedModel(coordinator.backbone, step, seed=coordinator.run.seed).state()
    lineage = step.starts_from or (step.writes if step.writes in coordinator.bank.heads() else None)
    if lineage is None:
        return state
    earlier = coordinator.bank.get(coordinator.bank.head(_lineage(coordinator.run, lineage)))
    shared = what_fits(earlier, state)
    reshaped = sorted({name.partition("/")[0] for name in earlier.keys() & state.keys() - shared.keys()})
    if reshaped:
        said = f"{', '.join(reshaped)} of '{lineage}' have other shapes in this step and start anew"
        coordinator.narrator.say(f"          {said}")
    return {**state, **shared}


def seeded_names(coordinator: Coordinator, step: Step, start: State) -> list[str]:
    """Tensors of the start that need not travel, because no round changes them and the seed makes them anywhere."""
    initial = AdaptedModel(coordinator.backbone, step, seed=coordinator.run.seed).state()
    return made_from_seed(start, initial, step)


def _lineage(run: Run, name: str) -> str:
    return (run.steps[name].writes or name) if name in run.steps else name


def _check_windows(run: Run, backbone: Backbone) -> None:
    """Raises ConfigError with every step whose window the backbone cannot cut into patches."""
    misfits = [
        f"Step '{step.name}': view.window {list(step.view.window)} is not made of whole patches of this backbone; its "
        f"sides (depth, height, width) must be multiples of {list(backbone.multiple)}."
        for step in run.steps.values()
        if not any(part.kind == "resolution" for part in step.adapter.parts.values())  # brings patches of its own
        and any(side % whole for side, whole in zip(step.view.window, backbone.multiple, strict=True))
    ]
    if misfits:
        raise ConfigError("\n".join(misfits))


def _begin(coordinator: Coordinator) -> None:
    _check_windows(coordinator.run, coordinator.backbone)
    resolved = run_to_yaml(coordinator.run).encode()
    path = coordinator.folder.config
    if not path.exists():
        write_bytes(path, resolved)
    elif _deciding(read_config(coordinator.folder)) != _deciding(_plain_config(coordinator.run)):
        raise ConfigError(
            f"{coordinator.folder.path} holds a run with another configuration (see config.yaml there): "
            "give this run another name=…, or delete the folder."
        )
    if coordinator.ledger.events("run_started"):
        started = coordinator.ledger.events("run_started")[0]
        if started["base"] != coordinator.base:
            raise ConfigError(
                f"The run began with frozen model {started['base'][:12]}, now it is {coordinator.base[:12]}: "
                "use the weights that it began with."
            )
        coordinator.ledger.append("run_resumed", {"base": coordinator.base})
        return
    coordinator.ledger.append("run_started", _run_started(coordinator))


def _plain_config(run: Run) -> dict[str, Any]:
    config: Any = OmegaConf.to_container(OmegaConf.create(run_to_yaml(run)))
    return dict(config)


def _deciding(config: dict[str, Any]) -> dict[str, Any]:
    """A resolved configuration without what no result depends on: the number of workers, and where runs are kept."""
    runtime = {name: value for name, value in config["runtime"].items() if name != "workers"}
    return {name: value for name, value in config.items() if name != "out"} | {"runtime": runtime}


def _run_started(coordinator: Coordinator) -> dict[str, Any]:
    run, backbone = coordinator.run, coordinator.backbone
    parameters = sum(p.numel() for p in backbone.parameters())
    size = sum(t.numel() * t.element_size() for t in backbone.state_dict().values())
    synthetic = run.data.kind == "phantom"
    return {
        "id": hashlib.sha256(run_to_yaml(run).encode() + secrets.token_bytes(16)).hexdigest()[:32],
        "run": run.name,
        "curriculum": run.curriculum,
        "seed": run.seed,
        "arm": "federated",
        "backbone": {
            **asdict(run.backbone),
            "digest": coordinator.base,
            "parameters": parameters,
            "bytes": size,
        },
        "base": coordinator.base,
        "environment": environment(run.runtime.device, run.runtime.threads),
        "data": {
            "kind": run.data.kind,
            "root": run.data.root,
            "synthetic": synthetic,
            "note": "synthetic phantom cohort" if synthetic else "real input",
        },
        "steps": {name: _step_card(step) for name, step in run.steps.items()},
        **(released_sizes(run) if run.backbone.kind == "ct_clip" else {}),
    }


def _step_card(step: Step) -> dict[str, Any]:
    return {
        "task": step.task.kind,
        "modalities": step.modalities,
        "rounds": step.rounds,
        "parts": list(step.adapter.parts),
        "metric": step.selection.metric or build_task(step.task).primary,
        "starts_from": step.starts_from,
    }


def _step_started(coordinator: Coordinator, step: Step, enrolment: Enrolment, start: State) -> dict[str, Any]:
    begun = coordinator.ledger.events("step_started", step=step.name)
    known = begun[0].get("known", {}) if begun else _plain(enrolment.known)  # a resumed step goes on as it began
    event = coordinator.ledger.append(
        "step_started",
        {
            "step": step.name,
            "centers": enrolment.training,
            "evaluated_at": enrolment.evaluating,
            "refused": enrolment.refused,
            "parts": {part: sum(t.numel() for t in own.values()) for part, own in parts_of(start).items()},
            "adapter_bytes": sum(t.numel() * t.element_size() for t in start.values()),
            "counts": enrolment.counts,
            "known": known,
            "bytes": enrolment.bytes,
        },
    )
    coordinator.narrator.step_started(event)
    return event


def _plain(sums: Sums) -> dict[str, Any]:
    """Sums as the ledger holds them."""
    return {name: np.asarray(value, np.float64).tolist() for name, value in sums.items()}


def _known(event: Mapping[str, Any]) -> Sums:
    """What was known of a step's labels and of its model, as it stands in an event."""
    return {name: np.array(value, np.float64) for name, value in event.get("known", {}).items()}


def _commit(coordinator: Coordinator, step: Step, state: State, enrolment: Enrolment) -> Entry:
    probe = probe_output(coordinator.backbone, step, state, seed=coordinator.run.seed)
    heads = coordinator.bank.heads()
    parent = heads.get(_lineage(coordinator.run, step.starts_from)) if step.starts_from else None
    return coordinator.bank.commit(
        step, state, base=coordinator.base, parents=[parent] if parent else [], centers=enrolment.training, probe=probe
    )


def _step_finished(
    coordinator: Coordinator, step: Step, entry: Entry, kept: int, enrolment: Enrolment, *, began: float
) -> None:
    known = _calibrated(coordinator, step, enrolment, kept)
    event: dict[str, Any] = {
        "step": step.name,
        "task": step.name,
        "region": step.region,
        "lineage": entry.lineage,
        "key": entry.key,
        "kept_round": kept,
        "evaluated_at": enrolment.evaluating,
        "threshold": float(known.pop("threshold")) if "threshold" in known else None,
        "known": _plain(known),
    }
    event |= evaluate_all(coordinator, [*coordinator.ledger.events("step_finished"), event], label=step.name)
    event["seconds"] = round(time.perf_counter() - began, 3)
    coordinator.narrator.step_finished(coordinator.ledger.append("step_finished", event))


def evaluate_all(coordinator: Coordinator, seen: list[dict[str, Any]], *, label: str) -> dict[str, Any]:
    """Rows for every task seen so far, each with its lineage's head, at every center seen so far in its region.

    Scores of a state that did not change are not computed again. A task's pooled row stays over the centers it was
    first evaluated at, so that a center that joins later cannot look like forgetting.
    """
    rows: list[dict[str, Any]] = []
    curves: dict[str, Any] = {}
    primary: dict[str, str] = {}
    for event in seen:
        name = event["task"]
        step = coordinator.run.steps[name]
        task = build_task(step.task)
        order = coordinator.order(step)
        order.state = coordinator.bank.get(coordinator.bank.head(event["lineage"]))
        order.threshold, order.known = event["threshold"], _known(event)
        order.since = event["kept_round"]
        centers = sorted({c for e in seen if e["region"] == event["region"] for c in e["evaluated_at"]})
        rows += coordinator.scorer.score(order, task, centers, label=label, pooled_over=event["evaluated_at"])
        primary[name] = task.primary
        if order.wants_curves:
            curves[name] = coordinator.scorer.curves(order, task, event["evaluated_at"])
    return {"scores": rows, "curves": curves, "primary": primary}


def _calibrated(coordinator: Coordinator, step: Step, enrolment: Enrolment, kept: int) -> Sums:
    """What is known of a learned step: its label sums, and what the validation cases' sums say about the kept state (a
    threshold between low and high risk, a temperature, a baseline hazard), without touching a test case."""
    task = build_task(step.task)
    known = _known(coordinator.ledger.events("step_started", step=step.name)[0])
    order = coordinator.order(step)
    order.state = coordinator.bank.get(coordinator.bank.head(step.writes or step.name))
    order.known, order.subset, order.since = known, "validation", kept
    if step.rounds == 0 or not task.curve_shapes:
        return known
    pooled = merge_sums(list(coordinator.scorer.sums(order, task, enrolment.training).values()))
    return known | task.calibrate(pooled)
