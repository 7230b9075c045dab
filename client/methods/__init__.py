"""What changes local training beside the task's loss, one file each: chosen by a step's federation and methods."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from client.methods.base import Method
from client.methods.ditto import Ditto
from client.methods.feddyn import FedDyn
from client.methods.local import Local
from client.methods.proximal import Proximal
from client.methods.scaffold import Scaffold
from client.vault.vault import Vault
from common.config.federation import local_methods
from common.config.step import Step
from common.plugins import Registry

METHODS: Registry[Callable[[Any, Vault], Method]] = Registry(
    "method",
    "build",
    {
        "ditto": lambda spec, vault: Ditto(spec.personal, vault),
        "feddyn": lambda spec, vault: FedDyn(spec.alpha, vault),
        "local": lambda spec, vault: Local(vault),
        "proximal": lambda spec, vault: Proximal(spec.proximal),
        "scaffold": lambda spec, vault: Scaffold(vault),
    },
)


def methods_of(step: Step, vault: Vault) -> list[Method]:
    """What a step's federation asks for, in the order in which it acts (own gradients are recorded before any pull),
    and after it the step's methods."""
    spec = step.federation
    chosen = [(name, spec) for name in local_methods(spec)]
    return [METHODS[name](own, vault) for name, own in [*chosen, *((own.kind, own) for own in step.methods)]]
