"""A run's first row in the ledger: weights, machine, data and steps; and what a resumed run must match."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import asdict
from typing import Any

from omegaconf import OmegaConf

from common.backbones.base import Backbone
from common.config.load import run_to_yaml
from common.config.methods.continual import MedcossMethod, MedseqftMethod, RehearsalMethod
from common.config.run import Run
from common.config.step import Step
from common.errors import BankError, ConfigError
from common.files import write_bytes
from common.model.state import bytes_of
from common.privacy.scores import scored_task
from common.runtime.machine import environment
from server.coordinator import Coordinator
from server.run.continued import take_models, take_over
from server.run.folder import read_config
from server.run.lineages import heads_of
from server.sizes.sizes import released_sizes

LATER = (("continues", None), ("model", None), ("compare_with", None))  # options that earlier runs did not have


def begin(coordinator: Coordinator) -> None:
    """Check the run against its folder and weights and write its first row, or that it was resumed.

    Raises:
        ConfigError: windows that the backbone cannot cut, another configuration or other weights than the run's.
    """
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
    _mend_heads(coordinator)
    if coordinator.ledger.events("run_started"):
        started = coordinator.ledger.events("run_started")[0]
        if started["base"] != coordinator.base:
            raise ConfigError(
                f"The run began with frozen model {started['base'][:12]}, now it is {coordinator.base[:12]}: "
                "use the weights that it began with."
            )
        coordinator.ledger.append("run_resumed", {"base": coordinator.base})
        return
    card = _card(coordinator, resolved)
    if name := coordinator.run.continues:
        card["continues"] = take_over(coordinator.folder, name, base=coordinator.base)
        coordinator.narrator.say(f"continues run {name} with {', '.join(card['continues']['heads'])}")
    if coordinator.run.model is not None:
        card["models"] = take_models(coordinator.folder, coordinator.run, base=coordinator.base)
        coordinator.narrator.say(f"scores {', '.join(card['models'])}; nothing is trained")
    coordinator.ledger.append("run_started", card)


def _mend_heads(coordinator: Coordinator) -> None:
    """Make the bank's heads again from the ledger where they are missing or damaged.

    Raises:
        BankError: the bank lacks an adapter that the ledger says was learned.
    """
    bank, known = coordinator.bank, heads_of(coordinator.ledger)
    missing = sorted({key for key in known.values() if not bank.holds(key)})
    if missing:
        raise BankError(
            f"The ledger says that adapter {missing[0][:12]} was learned, and {bank.folder} does not hold it: restore "
            "the bank from a backup, or start a new run folder."
        )
    try:
        if known.keys() <= bank.heads().keys():
            return
    except BankError as error:
        coordinator.narrator.say(str(error))
    bank.set_heads(known)
    coordinator.narrator.say(f"{bank.folder / 'heads.json'} was made again from the ledger")


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


def _plain_config(run: Run) -> dict[str, Any]:
    config: Any = OmegaConf.to_container(OmegaConf.create(run_to_yaml(run)))
    return dict(config)


def _deciding(config: dict[str, Any]) -> dict[str, Any]:
    """A resolved configuration without what no result depends on: the number of workers, and where runs are kept."""
    runtime = {name: value for name, value in config["runtime"].items() if name != "workers"}
    kept = {name: value for name, value in config.items() if name != "out" and (name, value) not in LATER}
    return kept | {"runtime": runtime}


def _card(coordinator: Coordinator, resolved: bytes) -> dict[str, Any]:
    run, backbone = coordinator.run, coordinator.backbone
    parameters = sum(p.numel() for p in backbone.parameters())
    size = bytes_of(backbone.state_dict().values())
    synthetic = run.data.kind == "phantom"
    return {
        "id": hashlib.sha256(resolved + secrets.token_bytes(16)).hexdigest()[:32],
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
            "minimum_cases": run.data.minimum_cases,
            "minimum_cell": run.data.minimum_cell,
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
        "metric": step.selection.metric or scored_task(step).primary,
        **({"classes": len(step.task.classes)} if step.task.kind == "classification" else {}),
        "starts_from": step.starts_from,
        **_rehearses(step),
    }


def _rehearses(step: Step) -> dict[str, Any]:
    """Where the step takes part with a memory alone, or of its optimizer's steps the share on kept cases."""
    for spec in step.methods:
        if isinstance(spec, RehearsalMethod) and spec.at:
            return {"rehearses": {"at": list(spec.at)}}
        if isinstance(spec, MedcossMethod | MedseqftMethod):
            return {"rehearses": {"share": spec.share}}
    return {}
