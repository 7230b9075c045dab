"""A twin of the frozen backbone: its own modules around the same tensors."""

from __future__ import annotations

import copy

from torch import nn

from common.backbones.base import Backbone


def frozen_twin(backbone: Backbone) -> Backbone:
    """The same modules anew around the same tensors, frozen and in evaluation mode.

    Parameters of the twin are new objects on the old storage: switching their gradients, or replacing a layer of the
    twin, does not reach the original. Buffers and the tokenizer are shared as they are.
    """
    memo: dict[int, object] = {id(buffer): buffer for buffer in backbone.buffers()}
    memo |= {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in backbone.parameters()}
    if hasattr(backbone, "tokenizer"):
        memo[id(backbone.tokenizer)] = backbone.tokenizer
    return copy.deepcopy(backbone, memo).eval()
