"""What a process keeps between messages: frozen models, the step's model, found and prepared cases."""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from functools import lru_cache
from pathlib import Path

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
from common.protocol.messages import State

MODELS: dict[tuple, tuple[AdaptedModel, State]] = {}
CASE_SETS: dict[tuple, CaseSet] = {}
SHARE = 0.5  # of the machine's memory that prepared cases may take


def drop_oldest(held: MutableMapping[tuple, CaseSet], *, room_for: int, most: float | None = None) -> None:
    """Drop the case sets that were not used for longest until another one fits.

    Args:
        most: bytes of all together; half of the machine's memory where absent.
    """
    limit = SHARE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if most is None else most
    total = room_for + sum(cases.nbytes for cases in held.values())
    for key in list(held):
        if total <= limit:
            return
        total -= held.pop(key).nbytes


def data_key(step: Step) -> str:
    """What decides a step's prepared cases, so that steps that see the same data share them."""
    records = ",".join(records_of(step).names) if RECORD in step.modalities else ""
    return "|".join([to_json(step.view), ",".join(step.modalities), to_json(step.task), records])


@lru_cache(maxsize=2)
def frozen_model(spec: str, device: str) -> tuple[Backbone, str]:
    """A frozen model on a device, and its digest."""
    backbone = load_backbone(from_json(BackboneSpec, spec))
    digest = backbone_digest(backbone)
    return backbone.to(device), digest


@lru_cache(maxsize=64)
def cases_at(root: str, code: str, mapping: str, layout: str) -> list[Case]:
    """A folder's cases of one center."""
    return find_cases(Path(root), center=code, mapping=mapping or None, layout=layout)
