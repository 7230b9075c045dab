"""LoRA and DoRA: golden values, and the names and depths that decide where they go."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from common.adapters.lora import inject, target_modules
from common.backbones.base import Backbone
from common.backbones.tiny import TinyBackbone
from common.config.adapter import LoraPart
from common.errors import AdapterError, UnknownName
from common.model.twin import frozen_twin

GOLDEN = Path(__file__).parents[3].parent / "shared" / "golden" / "misc.json"


class OneLayer(Backbone):
    sites = {"layer": r"layer"}  # noqa: RUF012
    blocks = {"layer": 1}  # noqa: RUF012

    def __init__(self, weight):
        super().__init__()
        self.layer = nn.Linear(2, 3, bias=False)
        self.layer.weight.data = torch.tensor(weight, dtype=torch.float32)
        self.freeze()


@pytest.mark.parametrize("dora", [False, True])
def test_golden_values_through_peft(dora):
    if not GOLDEN.is_file():
        pytest.skip(f"golden values are not at {GOLDEN}")
    golden = json.loads(GOLDEN.read_text())
    given = golden["inputs"]["lora"]
    backbone = OneLayer(given["W"])
    twin = frozen_twin(backbone)
    spec = LoraPart(sites=["layer"], rank=1, alpha=float(given["scale"]), dropout=0.0, dora=dora)
    tensors = inject(twin, backbone, name="within", spec=spec).tensors()
    with torch.no_grad():
        tensors["layer.lora_A.weight"].copy_(torch.tensor(given["A"]))
        tensors["layer.lora_B.weight"].copy_(torch.tensor(given["B"]))
        if dora:
            assert tensors["layer.lora_magnitude_vector.weight"].tolist() == pytest.approx(golden["dora_m"], abs=1e-6)
        output = twin.layer(torch.tensor([given["x"]], dtype=torch.float32))[0]
    assert output.tolist() == pytest.approx(golden["dora_y" if dora else "lora_y"], abs=2e-6)


def test_targets_are_whole_names_of_the_last_blocks():
    backbone = TinyBackbone()
    spec = LoraPart(sites=["image_attention", "text_attention"], depth=1)
    assert target_modules(backbone, spec) == [
        "image_blocks.3.proj", "image_blocks.3.qkv", "text_blocks.1.query", "text_blocks.1.value",
    ]  # fmt: skip
    assert len(target_modules(backbone, LoraPart(sites=["image_attention"]))) == 8  # and not image_embed.proj


def test_a_site_that_is_unknown_or_matches_nothing_is_refused():
    backbone = TinyBackbone()
    with pytest.raises(UnknownName, match=r"Unknown site 'image_attn'.*Did you mean 'image_attention'"):
        target_modules(backbone, LoraPart(sites=["image_attn"]))
    backbone.sites = {"image_attention": r"blocks\.(\d+)"}
    with pytest.raises(AdapterError, match="matches no layer of TinyBackbone"):
        target_modules(backbone, LoraPart(sites=["image_attention"]))
    with pytest.raises(AdapterError, match="at least one site"):
        target_modules(backbone, LoraPart(sites=[]))


@pytest.mark.parametrize("depth", [0, 5])
def test_a_depth_that_does_not_exist_is_refused(depth):
    with pytest.raises(AdapterError, match=f"depth {depth} does not fit site 'image_attention', which has 4 blocks"):
        target_modules(TinyBackbone(), LoraPart(sites=["image_attention"], depth=depth))


def test_two_parts_on_one_layer_add_up():
    backbone = OneLayer([[1.0, 0], [0, 1], [0, 0]])
    twin = frozen_twin(backbone)
    spec = LoraPart(sites=["layer"], rank=1, alpha=1.0, dropout=0.0)
    first, second = (inject(twin, backbone, name=name, spec=spec).tensors() for name in ("one", "one_more"))
    assert list(first) == list(second) == ["layer.lora_A.weight", "layer.lora_B.weight"]
    with torch.no_grad():
        for tensors, value in ((first, 1.0), (second, 10.0)):
            tensors["layer.lora_A.weight"].fill_(value)
            tensors["layer.lora_B.weight"].fill_(1.0)
        assert twin.layer(torch.tensor([[1.0, 1.0]])).tolist() == [[23.0, 23.0, 22.0]]
