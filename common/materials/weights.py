"""Weights that lie here: a run's or an export's frozen model and adapters, each with the licence that it is under."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from common.config.load import from_json
from common.config.run import BackboneSpec
from common.errors import BankError
from common.materials.licences import WeightsLicence, licence_of
from common.store.bank import AdapterBank
from common.store.exported import MANIFEST, bank_in, check_export


@dataclass(frozen=True)
class Weights:
    """A frozen model, or an adapter on one.

    Args:
        digest: SHA-256 over its tensors; empty of a model that was not loaded.
        base: of an adapter, the model that it stands on.
    """

    name: str
    digest: str
    licence: WeightsLicence
    base: str = ""


SHIPPED = (Weights("ct_clip mini", "", licence_of(BackboneSpec())),)
"""What comes with every checkout."""


def weights_in(folder: Path) -> list[Weights]:
    """The frozen model and the adapters of a run folder or an exported one.

    Raises:
        BankError: it is neither, or what was exported was changed.
    """
    bank = bank_in(folder)
    spec = None if bank is None else _spec(bank.parent)
    if bank is None or spec is None:
        raise BankError(f"{folder} is neither a run folder nor an exported bank; name runs/NAME or what was exported.")
    licence, adapters = licence_of(spec), AdapterBank(bank)
    entries = [adapters.entry(key) for _, key in sorted(adapters.heads().items())]
    bases = sorted({entry.base for entry in entries})
    models = [Weights(licence.name, base, licence) for base in bases]
    return models + [Weights(f"adapter {e.lineage}", e.state_hash, licence, base=e.base) for e in entries]


def _spec(folder: Path) -> BackboneSpec | None:
    """The frozen model that a folder names: an export in its manifest, a run in its configuration."""
    named: Any = None
    if (folder / MANIFEST).is_file():
        named = check_export(folder).get("backbone")
    elif (folder / "config.yaml").is_file():
        config: Any = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"))
        named = config.get("backbone")
    return None if named is None else from_json(BackboneSpec, json.dumps(named))
