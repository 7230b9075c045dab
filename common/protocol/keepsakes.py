"""Keepsakes: sums that methods ask of the centers at a step's end, and what the orders of a step bring of earlier ones.

A step's centers are asked once, with the state that the step keeps. What they answer is added up, becomes part of the
bank's entry, and a later step that starts from that entry sends what its own methods need of it with every order. The
teacher goes the same way; it needs no sums, for it is the step's start itself. A method that makes a step's start asks
the same before the first round, with the state that the step would begin with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from common.adapters.lowrank import A, pairs_of
from common.config.limits.patterns import matches_any
from common.config.methods import OPENING, methods_asked
from common.config.step import Step
from common.protocol.declaration import extra_form, sent_back
from common.protocol.messages import State
from common.protocol.triangles import MOMENT as MOMENT

KEEPSAKES = "keepsakes"  # an order's subset: the question at a step's end
TEACHER = "teacher/"  # before the names of what an order brings of the step's start
FISHER, ANCHOR, TASKS = "fisher/", "anchor/", "tasks"  # sums and arrays of `ewc` and `online_ewc`
BASIS = "basis/"  # with `MOMENT` those of `projection` and `inflora`
USED = "used"  # of `inflora`: rows that earlier steps have made

Shapes = dict[str, tuple[int, ...]]


def keepsake_shapes(state: Mapping[str, Tensor], step: Step) -> Shapes:
    """Name -> shape of every sum that a center may answer with at the step's end; empty where no method asks."""
    found: Shapes = {}
    for kind in keeping(step):
        found |= ASKED[kind](state, step)
    return found and {"fit.cases": (), **found}


def keeping(step: Step) -> list[str]:
    """Kinds of the step's methods that keep something at its end."""
    return [spec.kind for spec in methods_asked(step) if spec.kind in ASKED]


def opening(step: Step) -> list[str]:
    """Kinds of the step's methods that make its start."""
    asked = {spec.kind for spec in methods_asked(step) if spec.kind in OPENING and spec.rank > 0}
    return sorted(asked) if step.rounds > 0 else []


def arriving_form(state: Mapping[str, Tensor], step: Step) -> State:
    """What an order may bring beside the state: SCAFFOLD's control variate, and what the step's methods go on from."""
    found = extra_form(state, step)
    for spec in methods_asked(step):
        found |= BROUGHT[spec.kind](state, step) if spec.kind in BROUGHT else {}
    return found


def trained_in_step(state: Mapping[str, Tensor], step: Step) -> list[str]:
    """Names of a state that any round of the step changes and sends, in their order."""
    return sorted(n for n in sent_back(state, step, round=None) if state[n].is_floating_point())


def _fisher(state: Mapping[str, Tensor], step: Step) -> Shapes:
    return {FISHER + name: tuple(state[name].shape) for name in trained_in_step(state, step)}


def _moments(state: Mapping[str, Tensor], step: Step) -> Shapes:
    """Of every weight that can be a linear layer's; a center answers for those that are."""
    return _squares(state, trained_in_step(state, step))


def _factor_moments(state: Mapping[str, Tensor], step: Step) -> Shapes:
    """Of the factors A of parts that train, though no round trains them: they are what reads a layer's inputs."""
    pairs = pairs_of(state, step.adapter.parts)
    return _squares(state, [pair.name(A) for pair in pairs if matches_any(pair.part, step.train_parts)])


def _squares(state: Mapping[str, Tensor], names: Iterable[str]) -> Shapes:
    widths = {name: state[name].shape[1] for name in names if _is_weight(name, state[name])}
    return {MOMENT + name: (width, width) for name, width in widths.items()}


def _bases(state: Mapping[str, Tensor], step: Step) -> State:
    found = {f"projection/{TASKS}": torch.empty((), dtype=torch.int64, device="meta")}
    for name, tensor in state.items():
        if _is_weight(name, tensor):
            found[f"projection/{BASIS}{name}"] = torch.empty(tensor.shape[1], tensor.shape[1], device="meta")
    return found


def _used(state: Mapping[str, Tensor], step: Step) -> State:
    return {f"inflora/{USED}": torch.empty((), dtype=torch.int64, device="meta")}


def _is_weight(name: str, tensor: Tensor) -> bool:
    return tensor.dim() == 2 and tensor.is_floating_point() and name.endswith("weight")


def _quadratic(kind: str) -> Callable[[Mapping[str, Tensor], Step], State]:
    def form(state: Mapping[str, Tensor], step: Step) -> State:
        found = {f"{kind}/{TASKS}": torch.empty((), dtype=torch.int64, device="meta")}
        for name in (n for n, t in state.items() if t.is_floating_point()):
            like = torch.empty(state[name].shape, device="meta")
            found |= {f"{kind}/{FISHER}{name}": like, f"{kind}/{ANCHOR}{name}": like}
        return found

    return form


def _teacher(state: Mapping[str, Tensor], step: Step) -> State:
    return {TEACHER + name: torch.empty_like(t, device="meta") for name, t in state.items()}


ASKED: dict[str, Callable[[Mapping[str, Tensor], Step], Shapes]] = {
    "ewc": _fisher,
    "inflora": _factor_moments,
    "online_ewc": _fisher,
    "projection": _moments,
}
BROUGHT: dict[str, Callable[[Mapping[str, Tensor], Step], State]] = {
    "derpp": _teacher,
    "ewc": _quadratic("ewc"),
    "features": _teacher,
    "inflora": _used,
    "lwf": _teacher,
    "medcoss": _teacher,
    "mib": _teacher,
    "online_ewc": _quadratic("online_ewc"),
    "projection": _bases,
}
