"""A frozen layer that an adapter cannot handle is refused by name before the first forward."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from torch import nn

from common.adapters.lora import inject, target_modules
from common.backbones.base import Backbone
from common.config.adapter import LoraPart
from common.errors import AdapterError
from common.model.twin import frozen_twin


class OneLayer(Backbone):
    sites: ClassVar = {"layer": r"layer"}
    blocks: ClassVar = {"layer": 1}

    def __init__(self, layer):
        super().__init__()
        self.layer = layer
        self.freeze()


def dead(layer):
    with torch.no_grad():
        layer.weight[1] = 0
    return layer


def infinite(layer):
    with torch.no_grad():
        layer.weight[0] = torch.inf
    return layer


LAYERS = {
    "a zero row": (lambda: dead(nn.Linear(4, 3, bias=False)), True, "layer has 1 rows of zeros"),
    "a zero filter": (lambda: dead(nn.Conv3d(1, 3, 2)), True, "layer has 1 filters of zeros"),
    "a filter with a hole": (lambda: nn.Conv3d(2, 4, 3, dilation=2), False, r"layer is dilated by \(2, 2, 2\)"),
    "mirrored edges": (lambda: nn.Conv3d(2, 4, 3, padding=1, padding_mode="reflect"), False, "layer pads by 'reflect'"),
    "groups": (lambda: nn.Conv3d(6, 6, 3, groups=3), False, "layer has 3 groups, which do not divide rank 2"),
    "infinity": (lambda: infinite(nn.Linear(4, 3)), False, "layer has weights that are not finite"),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_the_layer_is_named_with_its_reason(kind):
    make, dora, reason = LAYERS[kind]
    backbone = OneLayer(make())
    part = LoraPart(sites=["layer"], rank=2, dropout=0.0, dora=dora)
    with pytest.raises(AdapterError, match=reason):
        inject(frozen_twin(backbone), backbone, name="within", spec=part)


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("make", [lambda: nn.Linear(4, 3), lambda: nn.Conv3d(2, 4, 3, padding=1, groups=2)])
def test_an_ordinary_layer_is_adapted(make, dora):
    backbone = OneLayer(make())
    assert target_modules(backbone, LoraPart(sites=["layer"], rank=2, dora=dora)) == ["layer"]


def test_a_zero_row_is_no_trouble_for_lora():
    backbone = OneLayer(dead(nn.Linear(4, 3, bias=False)))
    twin = frozen_twin(backbone)
    inject(twin, backbone, name="within", spec=LoraPart(sites=["layer"], rank=2, dropout=0.0))
    assert torch.isfinite(twin.layer(torch.ones(2, 4))).all()
