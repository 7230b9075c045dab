"""What changes local training beside the task's loss, one file each; ``step.federation`` chooses them."""

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
from common.config.federation import Federation

METHODS: dict[str, Callable[[Any, Vault], Method]] = {
    "ditto": lambda spec, vault: Ditto(spec.personal, vault),
    "feddyn": lambda spec, vault: FedDyn(spec.alpha, vault),
    "local": lambda spec, vault: Local(vault),
    "proximal": lambda spec, vault: Proximal(spec.proximal),
    "scaffold": lambda spec, vault: Scaffold(vault),
}


def methods_of(spec: Federation, vault: Vault) -> list[Method]:
    """What a step's federation asks for, in the order in which it acts: own gradients are recorded before any pull."""
    asked = {
        "scaffold": spec.kind == "scaffold",
        "feddyn": spec.kind == "feddyn",
        "proximal": spec.proximal > 0,
        "local": bool(spec.local),
        "ditto": spec.personal is not None,
    }
    return [METHODS[name](spec, vault) for name, is_asked in asked.items() if is_asked]
