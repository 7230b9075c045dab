"""What changes local training beside the task's loss, one file each: chosen by a step's federation and methods."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from client.methods.base import Method
from client.methods.derpp import Derpp
from client.methods.drift.ditto import Ditto
from client.methods.drift.feddyn import FedDyn
from client.methods.drift.local import Local
from client.methods.drift.moments import AveragedMoments, KeptMoments
from client.methods.drift.proximal import Proximal
from client.methods.drift.scaffold import Scaffold
from client.methods.ewc import Ewc
from client.methods.features import Features
from client.methods.inflora import InfLora
from client.methods.lwf import Lwf
from client.methods.mib import Mib
from client.methods.olora import OLora
from client.methods.projection import Projection
from client.methods.rehearsal import FewShot, Rehearsal
from client.methods.stages.medcoss import Medcoss
from client.methods.stages.medseqft import Medseqft, Refinement
from client.vault.vault import Vault
from common.config.methods import methods_asked
from common.config.step import Step
from common.plugins import Registry

METHODS: Registry[Callable[[Any, Vault], Method]] = Registry(
    "method",
    "build",
    {
        "averaged_moments": lambda spec, vault: AveragedMoments(),
        "derpp": lambda spec, vault: Derpp(spec, vault),
        "ditto": lambda spec, vault: Ditto(spec.strength, vault),
        "ewc": lambda spec, vault: Ewc(spec.kind, spec.strength, vault),
        "features": lambda spec, vault: Features(spec.strength, vault),
        "feddyn": lambda spec, vault: FedDyn(spec.alpha, vault),
        "few_shot": lambda spec, vault: FewShot(spec),
        "inflora": lambda spec, vault: InfLora(spec, vault),
        "kept_moments": lambda spec, vault: KeptMoments(vault),
        "local": lambda spec, vault: Local(vault),
        "lwf": lambda spec, vault: Lwf(spec.strength, vault, temperature=spec.temperature),
        "medcoss": lambda spec, vault: Medcoss(spec, vault),
        "medseqft": lambda spec, vault: Medseqft(spec, vault),
        "merge": lambda spec, vault: Method(),
        "mib": lambda spec, vault: Mib(spec.strength, vault),
        "olora": lambda spec, vault: OLora(spec.strength, spec.form),
        "online_ewc": lambda spec, vault: Ewc(spec.kind, spec.strength, vault),
        "projection": lambda spec, vault: Projection(vault),
        "proximal": lambda spec, vault: Proximal(spec.strength),
        "refinement": lambda spec, vault: Refinement(spec, vault),
        "rehearsal": lambda spec, vault: Rehearsal(spec, vault),
        "scaffold": lambda spec, vault: Scaffold(vault),
        "sequential": lambda spec, vault: Method(),
    },
)


def methods_of(step: Step, vault: Vault) -> list[Method]:
    """A step's methods at this center, in the order in which they act."""
    return [METHODS[spec.kind](spec, vault) for spec in methods_asked(step)]
