"""Methods that a step may list, each with its options: what keeps centers together, and what keeps tasks known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from common.config.methods.continual import FeaturesMethod, LwfMethod, RehearsalMethod, SequentialMethod
from common.config.methods.drift import DittoMethod, FedDynMethod, LocalMethod, ProximalMethod, ScaffoldMethod
from common.plugins import Registry

if TYPE_CHECKING:
    from common.config.step import Step

METHODS: Registry[type] = Registry(
    "method",
    "spec",
    {
        "ditto": DittoMethod,
        "features": FeaturesMethod,
        "feddyn": FedDynMethod,
        "local": LocalMethod,
        "lwf": LwfMethod,
        "proximal": ProximalMethod,
        "rehearsal": RehearsalMethod,
        "scaffold": ScaffoldMethod,
        "sequential": SequentialMethod,
    },
)
CONTINUAL = frozenset({"features", "lwf", "rehearsal", "sequential"})
"""Kinds that say how a lineage goes on: a step that lists none may not write one that an earlier step writes."""
TAUGHT = frozenset({"features", "lwf"})
"""Kinds that compare the model with the one that the step began with, which travels with each order."""
OWN_STATE = frozenset({"ditto", "feddyn", "local", "rehearsal", "scaffold"})
"""Kinds for which a center's work depends on what its vault holds from earlier rounds."""


def methods_asked(step: Step) -> list[Any]:
    """The options of every method of a step, in the order in which they act: those that its federation asks for by its
    own options (own gradients are recorded before any pull), then those that it lists."""
    return [*_of_federation(step.federation), *step.methods]


def asked_of_kind(step: Step, kind: str) -> list[Any]:
    """The options of a step's methods of one kind."""
    return [spec for spec in methods_asked(step) if spec.kind == kind]


def _of_federation(spec: Any) -> list[Any]:
    asked = {
        ScaffoldMethod: () if spec.kind == "scaffold" else None,
        FedDynMethod: (spec.alpha,) if spec.kind == "feddyn" else None,
        ProximalMethod: (spec.proximal,) if spec.proximal > 0 else None,
        LocalMethod: (spec.local,) if spec.local else None,
        DittoMethod: (spec.personal,) if spec.personal is not None else None,
    }
    return [method(*options) for method, options in asked.items() if options is not None]
