"""States of adapters: ``<part>/<path>`` -> tensor; what fits where, and what belongs to which part."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from common.errors import AdapterError
from common.protocol.messages import State


def what_fits(earlier: Mapping[str, Tensor], initial: Mapping[str, Tensor]) -> State:
    """The tensors of an earlier state that a step can start from: those of the same name, shape and type."""
    return {
        name: tensor
        for name, tensor in earlier.items()
        if name in initial and tensor.shape == initial[name].shape and tensor.dtype == initial[name].dtype
    }


def parts_of(state: Mapping[str, Tensor]) -> dict[str, State]:
    """A state by part, names unchanged: what a center took part in, and what each part weighs."""
    return {part: {name: state[name] for name in names} for part, names in names_by_part(state).items()}


def bytes_of(tensors: Iterable[Tensor]) -> int:
    """What tensors take in memory."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def names_by_part(names: Iterable[str]) -> dict[str, list[str]]:
    grouped: dict[str, list[str]] = {}
    for name in sorted(names):
        grouped.setdefault(name.partition("/")[0], []).append(name)
    return grouped


def check_fits(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    missing, unexpected = sorted(set(own) - set(state)), sorted(set(state) - set(own))
    misshapen = [
        f"{name} is {_form(state[name])}, expected {_form(own[name])}"
        for name in sorted(set(own) & set(state))
        if _form(own[name]) != _form(state[name])
    ]
    problems = {"missing": missing, "unexpected": unexpected, "misshapen": misshapen}
    if any(problems.values()):
        said = "; ".join(f"{len(names)} {what}: {_few(names)}" for what, names in problems.items() if names)
        raise AdapterError(f"An adapter state does not belong to this step: {said}. Use a state of the same step.")


def _few(names: list[str], limit: int = 8) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def _form(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def tensors_of(part: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers, live."""
    live = dict(part.named_parameters()) | dict(part.named_buffers())
    return {name: live[name] for name in part.state_dict()}
