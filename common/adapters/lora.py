"""LoRA and DoRA inside a frozen backbone (UNICON's within-model adaptation), through peft.

W' = W + (alpha / rank) B A with B = 0 at the start, so attaching changes no output bit; DoRA adds a magnitude per row
that starts as the row norm of W. The backbone handed in must be a twin that owns its modules: peft replaces them.

A part's aggregation rule may ask for more, also zero at the start (names in `common.adapters.lowrank`): Fed-SB trains
a middle matrix between frozen, seeded factors; FLoRA and FedEx keep what rank r cannot hold in a frozen low-rank side
factor of the task. The side factor is added where the twin's layer reads its weight; the backbone's own never changes.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.nn.utils import parametrize

from common.adapters.lowrank import FEDSB, MIDDLE, SIDE_A, SIDE_B, SIDE_SCALE, WITH_SIDE, B, lora_rule, matrix
from common.backbones.base import Backbone
from common.config.adapter import LoraPart
from common.errors import AdapterError, UnknownName

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
ADAPTABLE = (nn.Linear, *CONVOLUTIONS)


class SideFactor(nn.Module):
    """A layer's frozen weight as the task sees it: diag(scale) W + B A, both zero and one at the start.

    Args:
        weight: W, (d, ...): the shape to keep.
        rank: R, the side factor's room; what does not fit is left out by the server, which reports it.
        scaled: whether rows are scaled, which only DoRA's exact stack asks for.
    """

    def __init__(self, weight: Tensor, rank: int, *, scaled: bool):
        super().__init__()
        flat = matrix(weight)
        self.register_buffer(SIDE_B, weight.new_zeros(len(flat), rank))
        self.register_buffer(SIDE_A, weight.new_zeros(rank, flat.shape[1]))
        if scaled:
            self.register_buffer(SIDE_SCALE, weight.new_ones(len(flat)))

    def forward(self, weight: Tensor) -> Tensor:
        scale = getattr(self, SIDE_SCALE, None)
        own = weight if scale is None else weight * scale.view(-1, *[1] * (weight.dim() - 1))
        return own + (getattr(self, SIDE_B) @ getattr(self, SIDE_A)).view_as(weight)


class Middle(nn.Module):
    """Fed-SB's lora_B: the frozen B (d, r, ...) times a trained middle matrix (r, r) that starts at zero.

    B and A are Gaussian with variances 1/d and 1/k: nearly orthonormal for r << d, and the same bits on every machine
    from the part's seed. (Fed-SB takes them from the SVD of a first gradient, which would be a message of its own.)
    """

    def __init__(self, weight: Tensor):
        super().__init__()
        self.register_buffer("lora_fixed_B", torch.randn_like(weight) / len(weight) ** 0.5)

    def forward(self, middle: Tensor) -> Tensor:
        fixed: Tensor = getattr(self, "lora_fixed_B")  # noqa: B009
        return (matrix(fixed) @ middle).view_as(fixed)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """The middle matrix to start from."""
        return weight.new_zeros(weight.shape[1], weight.shape[1])


class LoraTensors:
    """The low-rank tensors of one part, wherever in the twin they sit."""

    def __init__(self, twin: nn.Module, adapter: str, sides: Mapping[str, SideFactor] | None = None):
        self.adapter = adapter
        self._twin = twin
        self._sides = dict(sides or {})

    def tensors(self) -> dict[str, Tensor]:
        """Path in the backbone -> live tensor, without peft's adapter name: ``blocks.0.qkv.lora_A.weight``.

        Trained and frozen factors are parameters, side factors buffers.
        """
        found: dict[str, Tensor] = {}
        infix = f".{self.adapter}."
        for name, parameter in self._twin.named_parameters():
            if infix in name:
                found[name.replace(infix, ".").replace(_INNER_MIDDLE, MIDDLE)] = parameter
        for name, buffer in self._twin.named_buffers():
            if infix in name:
                found[name.replace(infix, ".").replace(_INNER_B, B)] = buffer
        for path, side in self._sides.items():
            found |= {f"{path}.{name}": buffer for name, buffer in side.named_buffers()}
        return found

    def train(self, mode: bool) -> None:
        """Dropout on or off in these tensors' layers; the frozen layers around them have none."""
        for layer in self._layers():
            layer.training = mode  # DoRA asks the layer itself
            layer.lora_dropout[self.adapter].train(mode)

    def _layers(self) -> Iterator[Any]:
        return (m for m in self._twin.modules() if isinstance(m, LoraLayer) and self.adapter in m.lora_A)


_INNER_MIDDLE = "lora_B.parametrizations.weight.original"
_INNER_B = "lora_B.parametrizations.weight.0.lora_fixed_B"


def inject(twin: nn.Module, backbone: Backbone, *, name: str, spec: LoraPart) -> LoraTensors:
    """Put one LoRA part into the twin of a backbone; initialised from torch's global generator.

    Args:
        backbone: the original, untouched: its sites and module names say where the part goes.
        name: the part's name.
    """
    # peft reads "lora_" in parameter names; a prefix keeps any part name from being a substring of it.
    adapter = f"part-{name}"
    modules = target_modules(backbone, spec)
    targets = "|".join(re.escape(module) for module in modules)
    config = LoraConfig(
        r=spec.rank,
        lora_alpha=spec.alpha,  # type: ignore[arg-type]
        lora_dropout=spec.dropout,
        target_modules=targets,  # a string is matched in full, a list by suffix: "proj" would also hit "patch.proj"
        use_dora=spec.dora,
        bias="none",
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Already found a `peft_config`")  # a second part on one twin
        inject_adapter_in_model(config, twin, adapter_name=adapter)
    layers = {path: twin.get_submodule(path) for path in modules}
    if lora_rule(spec) == FEDSB:
        for layer in layers.values():
            _put_middle(layer, adapter)
    sides = {}
    if lora_rule(spec) in WITH_SIDE:
        sides = {path: _put_side(layer, spec) for path, layer in layers.items()}
    for layer in (m for m in twin.modules() if isinstance(m, LoraLayer)):
        layer.set_adapter(list(layer.lora_A))  # parts on the same layer add up
        layer.eval()
    return LoraTensors(twin, adapter, sides)


def frozen_weights(backbone: Backbone, parts: Mapping[str, Any]) -> dict[str, Tensor]:
    """``<part>/<path>`` -> the backbone's own weight, for the DoRA parts: the exact stack needs their rows' norms."""
    return {
        f"{name}/{path}": backbone.get_submodule(path).weight.detach()  # type: ignore[operator]
        for name, spec in parts.items()
        if spec.kind == "lora" and spec.dora
        for path in target_modules(backbone, spec)
    }


def _put_side(layer: Any, spec: LoraPart) -> SideFactor:
    base = layer.get_base_layer()
    side = SideFactor(base.weight, spec.side_rank, scaled=spec.dora)
    parametrize.register_parametrization(base, "weight", side)
    return side


def _put_middle(layer: Any, adapter: str) -> None:
    a, b = layer.lora_A[adapter], layer.lora_B[adapter]
    with torch.no_grad():
        a.weight.normal_(std=matrix(a.weight).shape[1] ** -0.5)
    parametrize.register_parametrization(b, "weight", Middle(b.weight), unsafe=True)  # a middle has its own shape


def target_modules(backbone: Backbone, spec: LoraPart) -> list[str]:
    """Full names of the modules that a LoRA part adapts, sorted.

    Raises:
        UnknownName: for a site that the backbone does not declare.
        AdapterError: when a site matches no module, ``depth`` cannot be met, or peft would adapt a layer wrongly.
    """
    layers = {name: module for name, module in backbone.named_modules() if isinstance(module, ADAPTABLE)}
    found: set[str] = set()
    for site in spec.sites:
        if site not in backbone.sites:
            raise UnknownName("site", site, backbone.sites, where=type(backbone).__name__)
        pattern = re.compile(backbone.sites[site])
        hits = {name: match for name in layers if (match := pattern.fullmatch(name))}
        if not hits and any(pattern.fullmatch(name) for name, module in backbone.named_modules() if _upsamples(module)):
            raise AdapterError(f"Site '{site}' names transposed convolutions, which peft cannot adapt; choose others.")
        if not hits:
            raise AdapterError(f"Site '{site}' ({pattern.pattern}) matches no layer of {type(backbone).__name__}.")
        found |= _deepest(hits, backbone, site=site, depth=spec.depth)
    problems = [problem for name in sorted(found) for problem in _wrong(name, layers[name], spec)]
    if problems:
        raise AdapterError(" ".join(problems[:4]) + (f" And {len(problems) - 4} more." if len(problems) > 4 else ""))
    if not found:
        raise AdapterError("A lora part needs at least one site; known: " + ", ".join(sorted(backbone.sites)) + ".")
    return sorted(found)


def _wrong(name: str, layer: nn.Module, spec: LoraPart) -> Iterator[str]:
    """Layers that an update cannot be computed for, and convolutions on which peft 0.21 computes something else."""
    yield from _wrong_weight(name, layer, spec)
    if not isinstance(layer, CONVOLUTIONS):
        return
    if layer.padding_mode != "zeros":
        yield f"{name} pads by '{layer.padding_mode}', which peft's update would not follow; adapt other layers."
    if any(step != 1 for step in layer.dilation):
        yield f"{name} is dilated by {tuple(layer.dilation)}, which peft's update would not be; adapt other layers."
    if layer.groups > 1 and spec.rank % layer.groups:
        yield f"{name} has {layer.groups} groups, which do not divide rank {spec.rank}; use a multiple of them."


def _wrong_weight(name: str, layer: nn.Module, spec: LoraPart) -> Iterator[str]:
    """A dead output (a row or filter of zeros) has no direction, and DoRA would be NaN there at once."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    if weight.is_meta:
        return
    flat = weight.detach().flatten(1)
    if not bool(torch.isfinite(flat).all()):
        yield f"{name} has weights that are not finite; load the frozen model again, or adapt other layers."
    empty = int((flat == 0).all(dim=1).sum()) if spec.dora else 0
    if empty:
        what = "filters" if isinstance(layer, CONVOLUTIONS) else "rows"
        yield f"{name} has {empty} {what} of zeros, whose direction DoRA divides by; set dora to false."


def _upsamples(module: nn.Module) -> bool:
    return isinstance(module, (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d))


def _deepest(hits: dict[str, re.Match[str]], backbone: Backbone, *, site: str, depth: int | None) -> set[str]:
    if depth is None:
        return set(hits)
    blocks = backbone.blocks.get(site, 0)
    if not 1 <= depth <= blocks:
        raise AdapterError(f"A lora part of depth {depth} does not fit site '{site}', which has {blocks} blocks.")
    return {name for name, match in hits.items() if _block(match) >= blocks - depth}


def _block(match: re.Match[str]) -> int:
    return next(int(group) for group in match.groups() if group and group.isdigit())
