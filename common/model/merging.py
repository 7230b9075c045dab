"""Merging: what a finished step trained inside the frozen model, taken into a new frozen model, equal on every machine.

A low-rank update is added to its layer's weight in float64 on the CPU: outer products one rank after another, each a
product and a sum of its own, and one rounding to the weight's type at the end. No matrix product of a library takes
part, so neither the processor nor the number of threads changes a bit, and server and centers reach the same digest.
The tensors of a ``full`` part replace the model's own: a fully trained stage is a replacement. Whatever else a step
trains (decoder, head, stems) stays with its task. The model that is merged into is left as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from common.adapters.lowrank import (
    MIDDLE,
    SIDE_A,
    SIDE_B,
    A,
    B,
    Pair,
    matrix,
    pairs_of,
)
from common.backbones.base import Backbone
from common.config.adapter import role_of
from common.config.step import Step
from common.errors import AdapterError
from common.model.twin import frozen_twin


def mergeable_parts(step: Step) -> list[str]:
    """Names of the step's parts that can be taken into the frozen model: ``full``, and ``lora`` without row norms."""
    return sorted(name for name, spec in step.adapter.parts.items() if _can_be_merged(spec))


def merged(backbone: Backbone, step: Step, state: Mapping[str, Tensor]) -> Backbone:
    """A twin of a frozen model with a step's parts taken in; tensors that no part touches are shared with it.

    Args:
        backbone: what the step stood on; not changed.
        state: the step's, as the bank holds it.

    Raises:
        AdapterError: the step has no part that can be merged, or one that does not fit the model.
    """
    if not mergeable_parts(step):
        raise AdapterError(
            f"Step '{step.name}' has no part that can be taken into the frozen model; only full parts and LoRA parts "
            "without row norms (dora: false) can."
        )
    twin = frozen_twin(backbone)
    for name, value in new_tensors(twin, step, state).items():
        _put(twin, name, value)
    return twin


def new_tensors(backbone: Backbone, step: Step, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Parameter name -> its value after merging, on the CPU, of the parameters that the step's parts change."""
    own = dict(backbone.named_parameters())
    found: dict[str, Tensor] = {}
    for name, spec in step.adapter.parts.items():
        if role_of(spec) == "full":
            found |= {n.partition("/")[2]: t for n, t in state.items() if n.partition("/")[0] == name}
    wrong = [n for n, t in found.items() if n not in own or own[n].shape != t.shape or own[n].dtype != t.dtype]
    lora = {name: spec for name, spec in step.adapter.parts.items() if role_of(spec) == "lora" and not spec.dora}
    for pair in pairs_of(state, lora):
        path = f"{pair.layer.partition('/')[2]}.weight"
        if path not in own:
            wrong.append(path)
            continue
        found[path] = _with_update(found.get(path, own[path]), pair, state)
    if wrong:
        raise AdapterError(
            f"Step '{step.name}' cannot be merged into this frozen model: {len(wrong)} of its tensors fit none there, "
            f"the first {sorted(wrong)[0]}; it stands on another base."
        )
    unsound = sorted(name for name, tensor in found.items() if not bool(tensor.isfinite().all()))
    if unsound:
        raise AdapterError(f"Step '{step.name}' cannot be merged: {unsound[0]} would not be finite.")
    return {name: tensor.detach().to("cpu", own[name].dtype).clone() for name, tensor in sorted(found.items())}


def _can_be_merged(spec: Any) -> bool:
    return role_of(spec) == "full" or (role_of(spec) == "lora" and not spec.dora)


def _with_update(weight: Tensor, pair: Pair, state: Mapping[str, Tensor]) -> Tensor:
    """W + side_B side_A + scale B A, summed rank by rank in float64 and rounded once."""
    total = _matrix64(weight)
    for left, right, scale in _factors(pair, state):
        if (len(left), right.shape[1]) != total.shape:
            raise AdapterError(
                f"The update of {pair.layer} is {len(left)} x {right.shape[1]}, its weight {total.shape[0]} x "
                f"{total.shape[1]}: grouped convolutions cannot be merged; adapt other layers."
            )
        for rank in range(len(right)):
            total += np.multiply.outer(left[:, rank] * scale, right[rank])
    return torch.from_numpy(total).to(weight.dtype).reshape(weight.shape)


def _factors(pair: Pair, state: Mapping[str, Tensor]) -> Iterator[tuple[np.ndarray, np.ndarray, float]]:
    """Left factor (d, r), right factor (r, k) and scale of each product that the layer's weight gains."""
    if pair.name(SIDE_B) in state:
        yield _matrix64(state[pair.name(SIDE_B)]), _matrix64(state[pair.name(SIDE_A)]), 1.0
    left, right = _matrix64(state[pair.name(B)]), _matrix64(state[pair.name(A)])
    if pair.name(MIDDLE) in state:
        middle = _matrix64(state[pair.name(MIDDLE)])
        left = sum((np.multiply.outer(left[:, k], middle[k]) for k in range(len(middle))), np.zeros_like(left))
    yield left, right, pair.scale


def _matrix64(tensor: Tensor) -> np.ndarray:
    found: np.ndarray = matrix(tensor.detach().to("cpu", torch.float64)).numpy().copy()
    return found


def _put(twin: nn.Module, name: str, value: Tensor) -> None:
    """Another parameter in the place of one of the twin's, on its device."""
    path, _, attribute = name.rpartition(".")
    module = twin.get_submodule(path)
    device = getattr(module, attribute).device
    setattr(module, attribute, nn.Parameter(value.to(device), requires_grad=False))
