"""T8 on the real parts, and what a rule says about effective weights against what peft's layers then compute."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from common.adapters.lora import frozen_weights, inject
from common.adapters.lowrank import trained_tensors
from common.backbones.base import Backbone
from common.backbones.tiny import TinyBackbone
from common.config.adapter import Adapter, DecoderPart, LoraPart, MlpPart, PatchEmbedPart, SkipPart
from common.config.federation import MeanFederation
from common.config.step import Step
from common.config.task import PrognosisTask, SegmentationTask
from common.model.adapted import AdaptedModel
from common.model.twin import frozen_twin
from server.aggregation import Setting, Update, aggregate
from tests.server.aggregation.made import gap

SURVIVAL, TUMOUR = PrognosisTask(bins=4, horizon_days=40), SegmentationTask()
ADAPTERS = {
    **{
        f"lora_{rule}": ({"within": LoraPart(sites=["image_attention"], rank=2, rule=rule)}, SURVIVAL)
        for rule in ("fedit", "ffa", "rolora", "fedsb")
    },
    "dora": ({"within": LoraPart(sites=["image_attention"], rank=2, dora=True, rule="fedit")}, SURVIVAL),
    "mlp": ({"image": MlpPart(width=6)}, SURVIVAL),
    "decoder": ({"decoder": DecoderPart(features=2)}, TUMOUR),
    "stem": ({"decoder": DecoderPart(features=2), "stem": PatchEmbedPart(), "skip": SkipPart(features=2)}, TUMOUR),
}
CASES = {"CHUM": 1, "CHUP": 3, "MDA": 2}
RATE, ROUNDS = 0.05, 3


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_t8_one_local_step_federated_is_one_step_on_the_pooled_cases(adapter):
    """Full-batch SGD, weights n, float64, over several rounds (RoLoRA turns to the other factor)."""
    parts, task = ADAPTERS[adapter]
    modalities = ["CT", "PET"] if "stem" in parts else ["CT"]
    step = Step(name="t8", task=task, modalities=modalities, adapter=Adapter(dict(parts)))
    model = AdaptedModel(TinyBackbone().double(), step, seed=1).double()
    g = torch.Generator().manual_seed(0)
    total = sum(CASES.values())
    inputs = {m: torch.rand((total, 1, 16, 16, 16), generator=g, dtype=torch.float64) * 2 - 1 for m in modalities}
    central = federated = start = _awake(model.state(), g)
    for round in range(1, ROUNDS + 1):
        central = _sgd(model, central, inputs, slice(None), round)
        updates, first = [], 0
        for center, cases in CASES.items():
            own = _sgd(model, federated, inputs, slice(first, first + cases), round)
            updates.append(Update(center, own, float(cases)))
            first += cases
        federated = aggregate(updates, federated, {}, Setting(MeanFederation(), step.adapter.parts, round=round)).state
    assert gap(federated, central) < 1e-14
    assert gap(central, start) > 1e-4


def _awake(state, g):
    """Away from the zero start, where some gradients vanish."""
    return {n: t + 0.05 * torch.randn(t.shape, generator=g, dtype=t.dtype) for n, t in state.items()}


def _sgd(model, state, inputs, rows, round):
    model.load(state)
    model.train_in_round(round)
    model.zero_grad()
    own = {m: x[rows] for m, x in inputs.items()}
    present = {m: torch.ones(len(x), dtype=torch.bool) for m, x in own.items()}
    (model(own, present) - 1).square().mean().backward()
    with torch.no_grad():
        for parameter in model.trainable_parameters():
            parameter -= RATE * parameter.grad
    return model.state()


class OneLayer(Backbone):
    """A linear layer or a convolution: its output is linear in its effective weight."""

    sites = {"layer": r"layer"}  # noqa: RUF012
    blocks = {"layer": 1}  # noqa: RUF012

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer.double()
        self.freeze()


LAYERS = {"linear": lambda: nn.Linear(5, 7), "conv": lambda: nn.Conv3d(2, 5, 2)}
INPUTS = {"linear": (3, 5), "conv": (2, 2, 3, 4, 3)}
RULES = ["ffa", "rolora", "fedsvd", "fedsb", "flora", "fedex", "dora"]


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("rule", RULES)
def test_the_aggregated_layer_gives_the_mean_of_the_centers_outputs(layer, rule):
    """Over three rounds, each from the last one's state, through peft's own forward."""
    torch.manual_seed(0)
    backbone = OneLayer(LAYERS[layer]())
    dora = rule == "dora"
    spec = LoraPart(sites=["layer"], rank=2, alpha=3.0, dropout=0.0, dora=dora, rule="" if dora else rule, side_rank=16)
    frozen = {name: t.clone() for name, t in backbone.state_dict().items()}
    twin = frozen_twin(backbone)
    tensors = {f"within/{n}": t for n, t in inject(twin, backbone, name="within", spec=spec).tensors().items()}
    for tensor in tensors.values():  # peft's are float32 unless told otherwise
        tensor.data = tensor.data.double()
    g = torch.Generator().manual_seed(1)
    x = torch.randn(INPUTS[layer], generator=g, dtype=torch.float64)
    state = {name: t.detach().clone() for name, t in tensors.items()}
    for round in range(1, 4):
        setting = Setting(
            MeanFederation(), {"within": spec}, round=round, base=frozen_weights(backbone, {"within": spec})
        )
        updates, outputs = [], []
        for i, weight in enumerate((1.0, 2.0, 4.0)):
            names = trained_tensors(state, {"within": spec}, round=round)
            own = {
                n: t + 0.3 * torch.randn(t.shape, generator=g, dtype=t.dtype) if n in names else t
                for n, t in state.items()
            }
            updates.append(Update(f"C{i}", own, weight))
            outputs.append(weight / 7 * _output(twin, tensors, own, x))
        state = aggregate(updates, state, {}, setting).state
        assert torch.allclose(_output(twin, tensors, state, x), sum(outputs), atol=1e-10)
    assert all(torch.equal(t, frozen[name]) for name, t in backbone.state_dict().items())


def _output(twin, tensors, state, x):
    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor.copy_(state[name])
        return twin.layer(x)
