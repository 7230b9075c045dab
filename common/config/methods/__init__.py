"""Methods that a step may list, each with its options: what keeps centers together, and what keeps tasks known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from common.config.methods.continual import (
    DerppMethod,
    EwcMethod,
    FeaturesMethod,
    FewShotMethod,
    InfLoraMethod,
    LwfMethod,
    MedcossMethod,
    MedseqftMethod,
    MergeMethod,
    MibMethod,
    OLoraMethod,
    OnlineEwcMethod,
    ProjectionMethod,
    RefinementMethod,
    RehearsalMethod,
    SequentialMethod,
)
from common.config.methods.drift import (
    AveragedMomentsMethod,
    DittoMethod,
    FedDynMethod,
    KeptMomentsMethod,
    LocalMethod,
    ProximalMethod,
    ScaffoldMethod,
)
from common.config.options import AVERAGED, CENTER
from common.data.sources import named_sources
from common.plugins import Registry

if TYPE_CHECKING:
    from common.config.step import Step

METHODS: Registry[type] = Registry(
    "method",
    "spec",
    {
        "averaged_moments": AveragedMomentsMethod,
        "derpp": DerppMethod,
        "ditto": DittoMethod,
        "ewc": EwcMethod,
        "features": FeaturesMethod,
        "feddyn": FedDynMethod,
        "few_shot": FewShotMethod,
        "inflora": InfLoraMethod,
        "kept_moments": KeptMomentsMethod,
        "local": LocalMethod,
        "lwf": LwfMethod,
        "medcoss": MedcossMethod,
        "medseqft": MedseqftMethod,
        "merge": MergeMethod,
        "mib": MibMethod,
        "olora": OLoraMethod,
        "online_ewc": OnlineEwcMethod,
        "projection": ProjectionMethod,
        "proximal": ProximalMethod,
        "refinement": RefinementMethod,
        "rehearsal": RehearsalMethod,
        "scaffold": ScaffoldMethod,
        "sequential": SequentialMethod,
    },
)
WORDS = "head/EHR_report"
"""The part of a masked step's state that guesses words. It never leaves a center."""
CONTINUAL = frozenset({
    "derpp", "ewc", "features", "inflora", "lwf", "medcoss", "mib", "olora", "online_ewc", "projection", "rehearsal",
    "sequential",
})  # fmt: skip
"""Kinds that say how a lineage goes on: a step that lists none may not write one that an earlier step writes."""
TAUGHT = frozenset({"derpp", "features", "lwf", "medcoss", "mib"})
"""Kinds that compare the model with the one that the step began with, which travels with each order."""
KEEPING = frozenset({"ewc", "inflora", "online_ewc", "projection"})
"""Kinds for which a step's end asks the centers for sums that later steps go on from: each step of a lineage lists
them, the first one too."""
OPENING = frozenset({"inflora"})
"""Kinds of these that make a step's start: the centers are asked once more, before the first round."""
OWN_STATE = frozenset(
    {"derpp", "ditto", "feddyn", "kept_moments", "local", "medcoss", "medseqft", "rehearsal", "scaffold"}
)
"""Kinds for which a center's work depends on what its vault holds from earlier rounds."""


def methods_asked(step: Step) -> list[Any]:
    """The options of every method of a step, in the order in which they act: those that its federation asks for by its
    own options (own gradients are recorded before any pull), then those that it lists, then what its training says of
    moments; local where words are learned, whose head must stay."""
    return _with_words_kept([*_of_federation(step.federation), *step.methods, *_of_training(step.training)], step)


def _with_words_kept(asked: list[Any], step: Step) -> list[Any]:
    """The same, with the head of words among what stays at each center: whatever a configuration says of it."""
    kept = [f"{WORDS}.*"] if step.task is not None and step.task.kind == "masked" and reads_words(step) else []
    if not kept:
        return asked
    own = next((spec for spec in asked if spec.kind == "local"), None)
    if own is None:
        return [LocalMethod(kept), *asked]
    return [LocalMethod([*own.tensors, *kept]) if spec is own else spec for spec in asked]


def reads_words(step: Step) -> bool:
    """Whether a masked step has reports among its sources."""
    return any(source.is_report for source in named_sources(step.task.sources))


def asked_of_kind(step: Step, kind: str) -> list[Any]:
    """The options of a step's methods of one kind."""
    return [spec for spec in methods_asked(step) if spec.kind == kind]


def _of_training(training: Any) -> list[Any]:
    asked = {CENTER: KeptMomentsMethod, AVERAGED: AveragedMomentsMethod}
    return [asked[training.moments]()] if training.moments in asked else []


def _of_federation(spec: Any) -> list[Any]:
    asked = {
        ScaffoldMethod: () if spec.kind == "scaffold" else None,
        FedDynMethod: (spec.alpha,) if spec.kind == "feddyn" else None,
        ProximalMethod: (spec.proximal,) if spec.proximal > 0 else None,
        LocalMethod: (spec.local,) if spec.local else None,
        DittoMethod: (spec.personal,) if spec.personal is not None else None,
    }
    return [method(*options) for method, options in asked.items() if options is not None]
