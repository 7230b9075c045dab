"""What changes local training beside the task's loss, one file each: chosen by a step's federation and methods."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from client.methods.base import Method
from client.methods.ditto import Ditto
from client.methods.features import Features
from client.methods.feddyn import FedDyn
from client.methods.local import Local
from client.methods.lwf import Lwf
from client.methods.proximal import Proximal
from client.methods.rehearsal import Rehearsal
from client.methods.scaffold import Scaffold
from client.methods.stages.medcoss import Medcoss
from client.vault.vault import Vault
from common.config.methods import methods_asked
from common.config.step import Step
from common.plugins import Registry

METHODS: Registry[Callable[[Any, Vault], Method]] = Registry(
    "method",
    "build",
    {
        "ditto": lambda spec, vault: Ditto(spec.strength, vault),
        "features": lambda spec, vault: Features(spec.strength, vault),
        "feddyn": lambda spec, vault: FedDyn(spec.alpha, vault),
        "local": lambda spec, vault: Local(vault),
        "lwf": lambda spec, vault: Lwf(spec.strength, vault, temperature=spec.temperature),
        "medcoss": lambda spec, vault: Medcoss(spec, vault),
        "proximal": lambda spec, vault: Proximal(spec.strength),
        "rehearsal": lambda spec, vault: Rehearsal(spec, vault),
        "scaffold": lambda spec, vault: Scaffold(vault),
        "sequential": lambda spec, vault: Method(),
    },
)


def methods_of(step: Step, vault: Vault) -> list[Method]:
    """A step's methods at this center, in the order in which they act."""
    return [METHODS[spec.kind](spec, vault) for spec in methods_asked(step)]
