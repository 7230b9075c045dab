"""Which tensors of a step travel: what a round trains, what stays at the centers, and what a seed makes anew."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from common.adapters.lowrank import seeded_tensors, trained_tensors
from common.config.limits.patterns import matches_any
from common.config.methods import OWN_STATE, asked_of_kind, methods_asked
from common.config.options import AVERAGED, NONE
from common.config.step import Step
from common.protocol.messages import State

CONTROL = "control/"  # SCAFFOLD's control variate
MOMENT_MARKS = ("adam_first/", "adam_second/")  # Adam's moments, without the correction for their beginning


def sent_back(names: Iterable[str], step: Step, *, round: int | None) -> frozenset[str]:
    """Names that a center returns after a round: trained in it, in a part that trains, and not local.

    Args:
        round: from 1; None: after any round.
    """
    trained = trained_tensors(_in_training(names, step), step.adapter.parts, round=round)
    return trained - local_tensors(trained, step)


def local_tensors(names: Iterable[str], step: Step) -> frozenset[str]:
    """Names that stay at each center (FedBN's normalisation): patterns of ``federation.local`` or of method local."""
    patterns = [pattern for spec in asked_of_kind(step, "local") for pattern in spec.tensors]
    return frozenset(n for n in names if matches_any(n, patterns))


def extra_form(sent: Mapping[str, Tensor], step: Step) -> State:
    """What a center sends beside these tensors, one float32 per number each: SCAFFOLD's change of its control variate,
    Adam's moments where they are averaged."""
    marks = extra_marks(step)
    return {mark + name: torch.empty(t.shape, device="meta") for name, t in sent.items() for mark in marks}


def extra_marks(step: Step) -> tuple[str, ...]:
    """What stands in front of the names of what is sent beside the update."""
    control = (CONTROL,) if step.federation.kind == "scaffold" else ()
    return control + (MOMENT_MARKS if step.training.moments == AVERAGED else ())


def keeps_state(step: Step) -> bool:
    """Whether a center's work in this step depends on what its vault holds from earlier rounds."""
    return step.federation.compression.kind != NONE or any(spec.kind in OWN_STATE for spec in methods_asked(step))


def made_from_seed(state: Mapping[str, Tensor], initial: Mapping[str, Tensor], step: Step) -> list[str]:
    """Tensors that neither centers nor the server change and that still are what the seed makes: they need not travel.

    Frozen factors (FFA, Fed-SB), parts at rest and what stays local. A factor that only the server changes (FedSVD's A,
    a side factor) is none of them.

    Args:
        initial: the step's state as a seed makes it, before anything was loaded.
    """
    resting = {*state} - {*_in_training(state, step)} | local_tensors(state, step)
    resting |= seeded_tensors(state, step.adapter.parts)
    return [n for n in sorted(resting) if n in initial and _same(state[n], initial[n])]


def _in_training(names: Iterable[str], step: Step) -> list[str]:
    part_of = {name: name.partition("/")[0] for name in names}
    training = {part for part in set(part_of.values()) if matches_any(part, step.train_parts)}
    return [name for name, part in part_of.items() if part in training]


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and bool((a == b).all())
