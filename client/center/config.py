"""``center.yaml``: what only this hospital knows, and the frozen model's files that it opens."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from client.policy import Policy
from common.config.run import BackboneSpec
from common.data.batch import CT, EHR, PET
from common.errors import ConfigError, PolicyRefusal
from common.plugins import load


@dataclass
class CenterConfig:
    """``center.yaml``: what only this hospital knows. `python -m client init` writes one with every key explained."""

    code: str = "???"
    root: str = "???"  # folder in a HECKTOR layout
    cache: str = ".cache"  # prepared volumes; can be deleted at any time
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
    plugins: list[str] = field(default_factory=list)  # own code beside this checkout's; the coordinator's are the same
    layout: str = "auto"  # the HECKTOR edition that the folder follows; auto: any of them
    modalities: list[str] = field(default_factory=lambda: [CT, PET, EHR])  # what steps may see; EHR: clinical records
    server: str = ""  # host:port of the coordinator; empty in a simulation
    server_certificate: str = ""  # PEM file of the authority that signed the coordinator's certificate
    key: str = ""  # this node's private key, made by `python -m client init`
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
    load(config.plugins, beside=Path(path).parent)
    return config


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


@lru_cache(maxsize=64)
def _config(path: str, changed: int) -> Any:
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(CenterConfig), OmegaConf.load(path)))
