"""LoRA and DoRA inside a frozen backbone (UNICON's within-model adaptation), through peft.

W' = W + (alpha / rank) B A with B = 0 at the start, so attaching changes no output bit; DoRA adds a magnitude per row
that starts as the row norm of W. The backbone handed in must be a twin that owns its modules: peft replaces them.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from typing import Any

from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import nn

from common.backbones.base import Backbone
from common.config.schema import LoraPart
from common.errors import AdapterError, UnknownName

ADAPTABLE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


class LoraTensors:
    """The low-rank tensors of one part, wherever in the twin they sit."""

    def __init__(self, twin: nn.Module, adapter: str):
        self.adapter = adapter
        self._twin = twin

    def parameters(self) -> dict[str, nn.Parameter]:
        """Path in the backbone -> parameter, without peft's adapter name: ``blocks.0.qkv.lora_A.weight``."""
        infix = f".{self.adapter}."
        return {
            name.replace(infix, "."): parameter for name, parameter in self._twin.named_parameters() if infix in name
        }

    def train(self, mode: bool) -> None:
        """Dropout on or off in these tensors' layers; the frozen layers around them have none."""
        for layer in self._layers():
            layer.training = mode  # DoRA asks the layer itself
            layer.lora_dropout[self.adapter].train(mode)

    def _layers(self) -> Iterator[Any]:
        return (m for m in self._twin.modules() if isinstance(m, LoraLayer) and self.adapter in m.lora_A)


def inject(twin: nn.Module, backbone: Backbone, *, name: str, spec: LoraPart) -> LoraTensors:
    """Put one LoRA part into the twin of a backbone; initialised from torch's global generator.

    Args:
        backbone: the original, untouched: its sites and module names say where the part goes.
        name: the part's name.
    """
    # peft reads "lora_" in parameter names; a prefix keeps any part name from being a substring of it.
    adapter = f"part-{name}"
    targets = "|".join(re.escape(module) for module in target_modules(backbone, spec))
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
    for layer in (m for m in twin.modules() if isinstance(m, LoraLayer)):
        layer.set_adapter(list(layer.lora_A))  # parts on the same layer add up
        layer.eval()
    return LoraTensors(twin, adapter)


def target_modules(backbone: Backbone, spec: LoraPart) -> list[str]:
    """Full names of the modules that a LoRA part adapts, sorted.

    Raises:
        UnknownName: for a site that the backbone does not declare.
        AdapterError: when a site matches no module, or ``depth`` cannot be met.
    """
    layers = {name: module for name, module in backbone.named_modules() if isinstance(module, ADAPTABLE)}
    found: set[str] = set()
    for site in spec.sites:
        if site not in backbone.sites:
            raise UnknownName("site", site, backbone.sites, where=type(backbone).__name__)
        pattern = re.compile(backbone.sites[site])
        hits = {name: match for name in layers if (match := pattern.fullmatch(name))}
        if not hits:
            raise AdapterError(f"Site '{site}' ({pattern.pattern}) matches no layer of {type(backbone).__name__}.")
        found |= _deepest(hits, backbone, site=site, depth=spec.depth)
    if not found:
        raise AdapterError("A lora part needs at least one site; known: " + ", ".join(sorted(backbone.sites)) + ".")
    return sorted(found)


def _deepest(hits: dict[str, re.Match[str]], backbone: Backbone, *, site: str, depth: int | None) -> set[str]:
    if depth is None:
        return set(hits)
    blocks = backbone.blocks.get(site, 0)
    if not 1 <= depth <= blocks:
        raise AdapterError(f"A lora part of depth {depth} does not fit site '{site}', which has {blocks} blocks.")
    return {name for name, match in hits.items() if _block(match) >= blocks - depth}


def _block(match: re.Match[str]) -> int:
    return next(int(group) for group in match.groups() if group and group.isdigit())
