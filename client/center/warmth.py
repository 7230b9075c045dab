"""What a message loaded, and loading it before the next one: the frozen model, the step's model, its prepared cases.

Nothing of an order's tensors is kept: models stand as the seed makes them. A warm parent has one thread and never
touches a GPU; for a center with one, it holds the frozen model in main memory, and each message moves it there.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch

from client.center.center import Center
from client.center.config import CenterConfig, own_files, read_config
from client.center.models import backbone_of, initial_state
from client.center.patients import prepared
from client.center.resident import CASE_SETS, data_key
from client.center.wanted import Wanted
from client.vault.cohort import FILE as COHORT
from common.config.load import from_json, step_from_json, step_to_json, to_json
from common.config.run import BackboneSpec, Split
from common.plugins import files_of
from common.protocol.messages import Order

LATEST: dict[str, Order] = {}  # path of center.yaml -> the last order that was answered there, without its tensors


def remember(center: Path, order: Order) -> None:
    """Note the order that this process has answered."""
    LATEST.clear()
    LATEST[str(center)] = replace(order, state={}, extra={}, known={})


def wanted(*, seconds: float, most_bytes: int) -> Wanted | None:
    """What the last order of this process needed; None where none was answered well.

    Args:
        seconds, most_bytes: what loading it may take.
    """
    for center, order in LATEST.items():
        config = read_config(center)
        own = own_files(config, order.backbone)
        return Wanted(
            center,
            lasting(order),
            tuple(key[-1] for key in CASE_SETS if key[:-1] == _set_key(config, order)),
            files=_files(config, own, Path(center)),
            without=tuple(map(str, (config.cache, config.vault))),
            seconds=seconds,
            memory=most_bytes,
        )
    return None


def keep(wanted: Wanted) -> None:
    """Load what a message would, in this process, whose forks will find it."""
    torch.set_num_threads(1)
    given, order = read_config(wanted.center), order_of(wanted.order)
    config = replace(given, threads=1, device="cpu")
    backbone = backbone_of(config, order)
    if given.device == "cpu":
        initial_state(config, order)  # with the step's model
    if not wanted.sets:
        return
    cases = {case.patient: case for case in Center(config, keeps_split=False).cases}
    for patients in wanted.sets:
        if set(patients) <= set(cases):
            prepared([cases[patient] for patient in patients], order, config, tokenizer=backbone.tokenizer)


def lasting(order: Order) -> str:
    """What of an order decides its model and its cases, as JSON: the same for all messages of a step."""
    return json.dumps(
        {
            "step": step_to_json(order.step),
            "seed": order.seed,
            "backbone": to_json(order.backbone),
            "base": order.base,
            "split": to_json(order.split),
            "skip_unreadable": order.skip_unreadable,
            "root": order.root,
            "merged": order.merged,
        }
    )


def order_of(text: str) -> Order:
    """An order with that, and nothing else."""
    found = json.loads(text)
    return Order(
        step_from_json(found["step"]),
        seed=int(found["seed"]),
        round=0,
        backbone=from_json(BackboneSpec, found["backbone"]),
        base=found["base"],
        split=from_json(Split, found["split"]),
        skip_unreadable=bool(found["skip_unreadable"]),
        root=found["root"],
        merged=list(found["merged"]),
    )


def _set_key(config: CenterConfig, order: Order) -> tuple:
    return config.root, config.cache, order.base, order.skip_unreadable, data_key(order.step)


def _files(config: CenterConfig, own: BackboneSpec, center: Path) -> tuple[str, ...]:
    """center.yaml, the patients' folder and their list in the vault, what the frozen model is read from, the table
    mapping, the plugins."""
    cohort = str(Path(config.vault) / config.code / COHORT)
    named = [config.root, cohort, own.weights or "", own.text_folder or "", config.mapping, config.layout]
    there = [name for name in named if name and Path(name).exists()]
    plugins = files_of(config.plugins, folder=center.parent).values()
    return (str(center), *there, *map(str, plugins))
