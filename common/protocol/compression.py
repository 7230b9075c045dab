"""Compression of adapter differences: half precision, group-wise int8 and top-k, with what was lost kept for later.

Only differences are compressed, never states: a difference is small where a state is not, and what rounding loses
(`Compressed.error`) is added to the next difference, so that nothing is lost for good (error feedback: Seide et al.
2014; Karimireddy et al. 2019, "Error Feedback Fixes SignSGD"). Both ends of a link decode the same bits. Tensors that
are not floating point travel as they are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from common.config.federation import Compression
from common.config.options import FP16, INT8, NONE
from common.errors import WireError
from common.protocol.messages import State

SCALE, INDEX = ":scale", ":index"
HALF_MAX = 65504.0


@dataclass(frozen=True)
class Compressed:
    """What travels, and what it fails to say."""

    wire: State
    error: State


def difference(new: Mapping[str, Tensor], start: Mapping[str, Tensor]) -> State:
    """new - start by name, in float32; of a tensor that is not floating point, the new one."""
    return {name: t - start[name] if t.is_floating_point() else t.clone() for name, t in new.items()}


def applied(start: Mapping[str, Tensor], change: Mapping[str, Tensor]) -> State:
    """start + change by name; names without a change stay as they are. The inverse of `difference`."""
    moved = {name: start[name] + t if t.is_floating_point() else t for name, t in change.items()}
    return {**start, **moved}


def compress(change: State, spec: Compression, *, error: Mapping[str, Tensor] | None = None) -> Compressed:
    """Encode a change plus what earlier changes failed to say.

    Args:
        change: as `difference` gives it.
        error: `Compressed.error` of the last change that arrived; none at first.
    """
    carried = error or {}
    owed = {n: t + carried[n] if n in carried and t.is_floating_point() else t for n, t in change.items()}
    wire = encode(owed, spec)
    said = decode(wire, owed, spec)
    return Compressed(wire, {name: t - said[name] for name, t in owed.items() if t.is_floating_point()})


def encode(change: Mapping[str, Tensor], spec: Compression) -> State:
    """The tensors that travel for a change, in the form that `form` declares."""
    wire: State = {}
    for name, tensor in change.items():
        if not tensor.is_floating_point() or spec.kind == NONE:
            wire[name] = tensor
        elif spec.kind == FP16:
            wire[name] = tensor.clamp(-HALF_MAX, HALF_MAX).to(torch.float16)  # beyond that a half is infinite
        elif spec.kind == INT8:
            wire[name], wire[name + SCALE] = _to_int8(tensor, spec.group)
        else:
            wire[name + INDEX], wire[name] = _largest(tensor, spec.share)
    return wire


def decode(wire: Mapping[str, Tensor], like: Mapping[str, Tensor], spec: Compression) -> State:
    """The change that was encoded, as float32 (or the type in ``like``).

    Args:
        like: tensors with the names, shapes and types of the change.

    Raises:
        WireError: when positions do not rise or leave the tensor; names and shapes are `form`'s to check.
    """
    change: State = {}
    for name, tensor in like.items():
        if not tensor.is_floating_point() or spec.kind == NONE:
            change[name] = wire[name]
        elif spec.kind == FP16:
            change[name] = wire[name].to(tensor.dtype)
        elif spec.kind == INT8:
            change[name] = _from_int8(wire[name], wire[name + SCALE], tensor, spec.group)
        else:
            change[name] = _scattered(name, wire[name + INDEX], wire[name], tensor)
    return change


def form(like: Mapping[str, Tensor], spec: Compression) -> State:
    """Names, shapes and types of what travels for a change of these tensors; on the meta device, without memory."""
    declared: State = {}
    for name, tensor in like.items():
        if not tensor.is_floating_point() or spec.kind == NONE:
            declared[name] = _meta(tensor.shape, tensor.dtype)
        elif spec.kind == FP16:
            declared[name] = _meta(tensor.shape, torch.float16)
        elif spec.kind == INT8:
            declared[name] = _meta(tensor.shape, torch.int8)
            declared[name + SCALE] = _meta((_groups(tensor.numel(), spec.group),), torch.float32)
        else:
            kept = _kept(tensor.numel(), spec.share)
            declared[name + INDEX], declared[name] = _meta((kept,), torch.int32), _meta((kept,), torch.float32)
    return declared


def _meta(shape: tuple[int, ...] | torch.Size, dtype: torch.dtype) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def _groups(size: int, group: int) -> int:
    return math.ceil(size / group)


def _in_groups(tensor: Tensor, group: int) -> Tensor:
    flat = tensor.detach().to(torch.float32).reshape(-1)
    return torch.nn.functional.pad(flat, (0, _groups(flat.numel(), group) * group - flat.numel())).view(-1, group)


def _to_int8(tensor: Tensor, group: int) -> tuple[Tensor, Tensor]:
    """Whole numbers in [-127, 127] and one scale per group of neighbors in memory order."""
    grouped = _in_groups(tensor, group)
    scale = grouped.abs().amax(dim=1) / 127 if grouped.numel() else grouped.new_zeros(0)
    steps = torch.where(scale[:, None] > 0, grouped / scale[:, None], torch.zeros_like(grouped))
    rounded = steps.round().clamp(-127, 127).to(torch.int8)
    return rounded.reshape(-1)[: tensor.numel()].reshape(tensor.shape), scale


def _from_int8(rounded: Tensor, scale: Tensor, like: Tensor, group: int) -> Tensor:
    repeated = scale.repeat_interleave(group)[: like.numel()].reshape(like.shape)
    return (rounded.to(torch.float32) * repeated).to(like.dtype)


def _kept(size: int, share: float) -> int:
    return min(size, max(1, math.ceil(share * size - 1e-9))) if size else 0


def _largest(tensor: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Positions in memory order, rising, and values of the largest entries; of equals, the earlier ones."""
    flat = tensor.detach().to(torch.float32).reshape(-1)
    order = torch.sort(flat.abs(), descending=True, stable=True).indices[: _kept(flat.numel(), share)]
    positions = order.sort().values
    return positions.to(torch.int32), flat[positions]


def _scattered(name: str, positions: Tensor, values: Tensor, like: Tensor) -> Tensor:
    flat = torch.zeros(like.numel(), dtype=torch.float32)
    where = positions.to(torch.int64)
    rises = len(where) < 2 or bool((where[1:] > where[:-1]).all())
    if len(where) and not (rises and int(where[0]) >= 0 and int(where[-1]) < flat.numel()):
        raise WireError(f"Array '{name}' has positions that do not rise or lie outside the tensor.")
    flat[where] = values
    return flat.reshape(like.shape).to(like.dtype)
