"""What a process keeps between messages: frozen models, the step's model, found and prepared cases."""

from __future__ import annotations

import os
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

from client.data.case import Case
from client.data.dataset import CaseSet
from client.data.layouts import find_cases
from common.backbones import backbone_digest, load_backbone
from common.backbones.base import Backbone
from common.config.load import from_json, to_json
from common.config.run import BackboneSpec
from common.config.step import Step
from common.data.batch import RECORD
from common.exact.step import records_of
from common.model.adapted import AdaptedModel
from common.model.state import bytes_of
from common.protocol.messages import State


@dataclass(frozen=True)
class Resident:
    """A step's model, its state as the seed makes it, and the bytes that they add to the frozen model's."""

    model: AdaptedModel
    initial: State
    nbytes: int


@dataclass(frozen=True)
class Frozen:
    """A frozen model on its device, its digest, and its bytes."""

    backbone: Backbone
    digest: str
    nbytes: int


class Sized(Protocol):
    """What may be kept."""

    @property
    def nbytes(self) -> int: ...


S = TypeVar("S", bound=Sized)
FROZEN: dict[tuple, Frozen] = {}
MODELS: dict[tuple, Resident] = {}
CASE_SETS: dict[tuple, CaseSet] = {}
SHARE = 0.5  # of the machine's memory that prepared cases may take
OF_FROZEN, OF_MODELS = 0.25, 0.05  # of the device's memory that frozen models, and what steps add to them, may take


def drop_oldest(held: MutableMapping[tuple, S], *, room_for: int, most: float | None = None) -> None:
    """Drop what was not used for longest until another one fits.

    Args:
        held: by key, what was used last at the end.
        most: bytes of all together; half of the machine's memory where absent.
    """
    limit = SHARE * machine_bytes() if most is None else most
    total = room_for + sum(cases.nbytes for cases in held.values())
    for key in list(held):
        if total <= limit:
            return
        total -= held.pop(key).nbytes


def data_key(step: Step) -> str:
    """What decides a step's prepared cases, so that steps that see the same data share them."""
    records = ",".join(records_of(step).names) if RECORD in step.modalities else ""
    return "|".join([to_json(step.view), ",".join(step.modalities), to_json(step.task), records])


def kept(held: MutableMapping[tuple, S], key: tuple) -> S | None:
    """What is kept under a key, now the last to be dropped."""
    if key in held:
        held[key] = held.pop(key)
    return held.get(key)


def frozen_model(spec: str, device: str) -> tuple[Backbone, str]:
    """A frozen model on a device, and its digest. Frozen models are kept up to a share of the device's memory."""
    found = kept(FROZEN, (spec, device))
    if found is None:
        backbone = load_backbone(from_json(BackboneSpec, spec))
        digest = backbone_digest(backbone)
        found = Frozen(backbone.to(device), digest, bytes_of(tensors_of(backbone)))
        _keep_frozen((spec, device), found, device=device)
    return found.backbone, found.digest


def kept_base(key: tuple, make: Callable[[], Backbone], *, around: Backbone) -> Backbone:
    """A base that grew, kept beside the frozen model that it grew from; what it shares with that costs nothing."""
    found = kept(FROZEN, key)
    if found is None:
        backbone = make()
        found = Frozen(backbone, str(key[-1]), own_bytes(backbone, around))
        _keep_frozen(key, found, device=str(key[1]))
    return found.backbone


def _keep_frozen(key: tuple, found: Frozen, *, device: str) -> None:
    before = set(FROZEN)
    drop_oldest(FROZEN, room_for=found.nbytes, most=OF_FROZEN * device_bytes(device))
    if before - set(FROZEN):
        MODELS.clear()  # they are built around the same tensors
    FROZEN[key] = found


def keep_model(key: tuple, model: AdaptedModel, *, around: Backbone, device: str) -> Resident:
    """Keep a step's model, up to a share of the device's memory; what it shares with the frozen model costs nothing."""
    initial = model.state()
    found = Resident(model, initial, 2 * own_bytes(model, around) + bytes_of(initial.values()))  # with gradients
    drop_oldest(MODELS, room_for=found.nbytes, most=OF_MODELS * device_bytes(device))
    MODELS[key] = found
    return found


def tensors_of(module: nn.Module) -> list[Tensor]:
    """Parameters and buffers."""
    return [*module.parameters(), *module.buffers()]


def own_bytes(module: nn.Module, around: nn.Module) -> int:
    """What a module takes beyond what it shares with another one."""
    shared = {tensor.data_ptr() for tensor in tensors_of(around)}
    return bytes_of(tensor for tensor in tensors_of(module) if tensor.data_ptr() not in shared)


def machine_bytes() -> int:
    """This machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def device_bytes(device: str) -> int:
    """The memory of a device."""
    return int(torch.cuda.get_device_properties(0).total_memory) if device == "cuda" else machine_bytes()


@lru_cache(maxsize=64)
def cases_at(root: str, code: str, mapping: str, layout: str) -> list[Case]:
    """A folder's cases of one center."""
    return find_cases(Path(root), center=code, mapping=mapping or None, layout=layout)
