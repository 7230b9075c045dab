"""Full: tensors of the backbone itself as one part, copied and trained. No adapter, but what adapters stand against.

The twin's parameters are replaced by copies that belong to the part: the shared backbone stays as it is, and the bank,
the wire and isolation see one more (large) part. Which tensors is said by patterns (`common.config.limits.patterns`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from common.backbones.base import Backbone
from common.config.adapter import FullPart
from common.config.limits.patterns import chosen
from common.errors import AdapterError

NOTHING = r"(?!)"  # matches no name
START_STD = 0.02  # of weights from scratch: ViT's truncated normal (timm, BERT)


class OwnTensors:
    """Copies of backbone parameters, in their places in the twin."""

    def __init__(self, tensors: dict[str, nn.Parameter]):
        self._tensors = tensors

    def tensors(self) -> dict[str, Tensor]:
        """Path in the backbone -> parameter."""
        return dict(self._tensors)

    def train(self, mode: bool) -> None:
        """Nothing: layers stay in evaluation mode (no dropout, no drifting statistics), only their tensors move."""


def own_tensors(twin: Backbone, spec: FullPart) -> OwnTensors:
    """Give a twin its own copies of the parameters whose whole names match, but for those that never travel
    (`Backbone.stays`).

    ``scratch`` replaces them by ViT's usual start (normal of standard deviation 0.02 cut at two of them, biases 0,
    scales 1), drawn from torch's global generator.

    Raises:
        AdapterError: the patterns match nothing.
    """
    found: dict[str, nn.Parameter] = {}
    for name, module, attribute, parameter in list(_places(twin)):
        if parameter.numel() and chosen(name, spec.tensors) and not re.fullmatch(twin.stays or NOTHING, name):
            with torch.no_grad():
                own = nn.Parameter(parameter.detach().clone())
                if spec.scratch:
                    _restart(own, name)
            setattr(module, attribute, own)
            found[name] = own
    if not found:
        raise AdapterError(
            f"A full part's tensors {spec.tensors} match no tensor of {type(twin).__name__}; its names begin like "
            f"{', '.join(sorted(name for name, _ in twin.named_parameters())[:3])}."
        )
    return OwnTensors(found)


def _places(twin: nn.Module) -> Iterator[tuple[str, nn.Module, str, nn.Parameter]]:
    for prefix, module in twin.named_modules():
        for attribute, parameter in module.named_parameters(recurse=False):
            yield f"{prefix}.{attribute}".removeprefix("."), module, attribute, parameter


def _restart(parameter: nn.Parameter, name: str) -> None:
    if parameter.ndim > 1:
        nn.init.trunc_normal_(parameter, std=START_STD, a=-2 * START_STD, b=2 * START_STD)
    else:
        nn.init.constant_(parameter, 0.0 if name.endswith("bias") else 1.0)
