"""Checkpoints of other people: read without running their code, names translated, everything that does not fit named.

A checkpoint file is a plain state dict (``.safetensors``, or a pickle that ``weights_only`` accepts), flat or in one
of the wrappers that training scripts use; whatever else such a wrapper holds (optimiser, epoch) is left alone.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from common.errors import BackboneError

WRAPPERS = ("state_dict", "net", "model")  # Lightning and MONAI; SuPreM; disruptive autoencoders


def read_state(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint file by name.

    Raises:
        BackboneError: the file is missing, damaged, or holds anything but named tensors. No code in it is run.
    """
    path = Path(path)
    if not path.is_file():
        raise BackboneError(f"There is no checkpoint at {path}; set backbone.weights to a .pt or .safetensors file.")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    try:
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # pickle, zip and torch each have their own kinds
        raise BackboneError(
            f"{path} cannot be read as a plain state dict ({type(error).__name__}); "
            "save the model's state_dict() alone, without code or optimiser."
        ) from error
    state = _unwrapped(found)
    if state is None:
        raise BackboneError(
            f"{path} is not a plain state dict of named tensors, nor one under {', '.join(WRAPPERS)}; save the model's "
            "state_dict() alone."
        )
    return state


def _unwrapped(found: object) -> dict[str, Tensor] | None:
    if not isinstance(found, dict) or not found:
        return None
    if all(isinstance(name, str) and torch.is_tensor(value) for name, value in found.items()):
        return dict(found)
    inside = next((found[name] for name in WRAPPERS if isinstance(found.get(name), dict)), None)
    return _unwrapped(inside)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise BackboneError(f"{path} is damaged ({error}); fetch it again.") from error


def without_prefixes(name: str, prefixes: tuple[str, ...]) -> str:
    """A state name without the wrappers' prefixes, however many and in whatever order they were put in front."""
    while stripped := next((name[len(prefix) :] for prefix in prefixes if name.startswith(prefix)), ""):
        name = stripped
    return name


def load_into(module: nn.Module, state: Mapping[str, Tensor], *, what: str, source: str | Path) -> None:
    """Loads a state whose names are the module's; nothing is loaded where anything does not fit.

    Args:
        what, source: the module and the file in the words of the error.

    Raises:
        BackboneError: missing, unexpected and misshapen keys, all named.
    """
    problems = mismatches(module.state_dict(), state)
    if problems:
        raise BackboneError(
            f"{source} does not fit {what}: {'; '.join(problems)}. Check backbone.config against the checkpoint."
        )
    module.load_state_dict(dict(state))


def mismatches(expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    """Missing, unexpected and misshapen keys, one phrase for each kind that occurs."""
    missing = sorted(expected.keys() - state.keys())
    unexpected = sorted(state.keys() - expected.keys())
    misshapen = [
        f"{name} is {tuple(state[name].shape)}, not {tuple(expected[name].shape)}"
        for name in sorted(expected.keys() & state.keys())
        if state[name].shape != expected[name].shape
    ]
    kinds = {"missing": missing, "unexpected": unexpected, "misshapen": misshapen}
    return [f"{len(names)} {kind}: {', '.join(names)}" for kind, names in kinds.items() if names]
