"""``center.yaml``: what only this hospital knows, and the frozen model's files that it opens."""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from client.data.splits import Deal
from client.policy import Policy, test_folds
from client.policy.policy import ceiling_of
from client.retention.declared import Retention, check_retention
from common.config.run import BackboneSpec
from common.data.batch import CT, EHR, PET, RECORD
from common.errors import ConfigError, PolicyRefusal
from common.plugins import load
from common.text_yaml import load_text

KNOWN = (CT, PET, EHR, RECORD)
ALIASES = {"PT": PET, "PETCT": PET, "CLINICAL": EHR, "TABLE": EHR}


@dataclass
class CenterConfig:
    """``center.yaml``: what only this hospital knows. `python -m client init` writes one with every key explained."""

    code: str = "???"
    root: str = "???"  # folder with images and tables
    cache: str = ".cache"  # prepared volumes; can be deleted at any time
    cache_gb: float = 200.0  # at most this much of prepared volumes; those not read for longest go first
    vault: str = ".vault"  # what must survive between rounds and steps
    device: str = "cpu"
    threads: int = 1
    mixed_precision: bool = False
    deterministic: bool = True
    gpu_memory_gb: float | None = None  # at most this much of the GPU; null: no limit
    weights: dict[str, str] = field(default_factory=dict)  # kind of frozen model -> this hospital's own file of it
    text_folder: str = ""  # this hospital's own CXR-BERT folder
    mapping: str = ""  # the hospital's own table mapping, as in configs/mapping; empty: the shipped ones
    policy: Policy = field(default_factory=Policy)
    retention: Retention = field(default_factory=Retention)
    split: Deal | None = None  # who trains, validates and tests here; null: the first order fixes it
    plugins: list[str] = field(default_factory=list)  # own code beside this checkout's; the coordinator's are the same
    layout: str = "auto"  # hecktor (or one edition), nnunet, brats, or a YAML that declares it; auto: what is there
    modalities: list[str] = field(default_factory=lambda: [CT, PET, EHR])  # what steps may see; EHR: clinical records
    server: str = ""  # host:port of the coordinator; empty in a simulation
    server_certificate: str = ""  # PEM file of the authority that signed the coordinator's certificate
    key: str = ""  # this node's private key, made by `python -m client init`
    partners: str = ""  # folder with the CODE.pub of each hospital that this one sums securely with, from itself
    health: str = "127.0.0.1:9097"  # where the running node answers health probes; this machine only


def read_config(path: Path | str) -> CenterConfig:
    """What a center's YAML file says, with the plugins that it names loaded. Raises ConfigError."""
    try:
        config = copy.deepcopy(_config(str(path), Path(path).stat().st_mtime_ns))
    except FileNotFoundError as error:
        raise ConfigError(
            f"{path} is not a center's configuration: there is no such file. Write one with `python -m client init`."
        ) from error
    except Exception as error:
        raise ConfigError(f"{path} is not a center's configuration: {error}") from error
    assert isinstance(config, CenterConfig)
    load(config.plugins, folder=Path(path).parent)
    _check_modalities(config.modalities, path)
    _check_split(config, path)
    ceiling_of(config.policy)
    check_retention(config.retention, path)
    return config


def _check_split(config: CenterConfig, path: Path | str) -> None:
    """Raises ConfigError where the split that the file declares is none, or no fold may test."""
    folds, deal = test_folds(config.policy), config.split
    if deal is not None and not (deal.folds >= 2 and 0 <= deal.validation < 1):
        raise ConfigError(
            f"{path} declares a split of {deal.folds} folds and a validation share of {deal.validation}; it needs two "
            "folds or more and a share from 0 to below 1."
        )
    if deal is not None and folds is not None and folds[-1] >= deal.folds:
        raise ConfigError(
            f"{path} lets fold {folds[-1]} test, but its split has the folds 0 to {deal.folds - 1}; correct "
            "policy.test_folds or split."
        )


def _check_modalities(named: list[str], path: Path | str) -> None:
    """A modality that is almost one of ours is a slip, and would leave out every image of it in silence."""
    for name in named:
        meant = ALIASES.get(name.upper()) or next((known for known in KNOWN if _is_slip(name, known)), None)
        if name not in KNOWN and meant is not None:
            raise ConfigError(f"{path} names the modality '{name}', which is none; did you mean '{meant}'?")


def _is_slip(name: str, known: str) -> bool:
    """In other letters' case, with a letter typed twice, or with one other letter of three."""
    written = name.upper()
    once = re.sub(r"(.)\1+", r"\1", written)
    one_other = len(written) == len(known) >= 3 and sum(a != b for a, b in zip(written, known, strict=True)) == 1
    return known in (written, once) or one_other


def own_files(config: CenterConfig, spec: BackboneSpec) -> BackboneSpec:
    """The frozen model with this hospital's own files in the places of the coordinator's.

    A path from the network is never opened. Only a simulation's centers, which have no server, share its files.

    Raises:
        PolicyRefusal: when the model is read from files and center.yaml names none.
    """
    if not config.server:
        return spec
    lacks = [f"weights: {{{spec.kind}: FILE}}"] if spec.weights and spec.kind not in config.weights else []
    lacks += ["text_folder: FOLDER"] if spec.text_folder and not config.text_folder else []
    if lacks:
        raise PolicyRefusal(
            "declined.weights",
            f"The step's frozen model is read from files; name this center's own in center.yaml: {', '.join(lacks)}.",
        )
    return replace(
        spec,
        weights=config.weights[spec.kind] if spec.weights else None,
        text_folder=config.text_folder if spec.text_folder else None,
    )


@lru_cache(maxsize=1024)  # a simulation of a hundred centers must not parse each file anew for every message
def _config(path: str, changed: int) -> Any:
    written = OmegaConf.create(load_text(path) or {})  # as text: a center called NO is no False, 1e3 no 1000.0
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(CenterConfig), written))
