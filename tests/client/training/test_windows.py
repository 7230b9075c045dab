"""Fitting and answering see the same columns: the answer of windows and mirrors is linear in the averaged columns."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from monai.inferers import SlidingWindowInferer

from client.training.prediction import predict
from client.training.windows import columns_at, mirrorings, windows_over
from common.backbones import load_backbone
from common.config.adapter import Adapter, VoxelLinearPart
from common.data.batch import Batch
from common.model.adapted import AdaptedModel
from tests.helpers.small import small_run


def fitted(view) -> AdaptedModel:
    run = small_run(steps=["tumour_ctpet"])
    step = run.steps["tumour_ctpet"]
    part = VoxelLinearPart(levels=[3], blurs=[1.0])
    declared = replace(step, adapter=Adapter({"voxels": part}), view=replace(step.view, **view), starts_from=None)
    model = AdaptedModel(load_backbone(run.backbone), declared, seed=1)
    generator = torch.Generator().manual_seed(2)
    state = {n: torch.randn(t.shape, generator=generator, dtype=t.dtype) for n, t in model.state().items()}
    model.load({n: t.abs() + 0.5 if n.endswith("scale") else t for n, t in state.items()})
    return model


def case(size, *, has_pet: bool = True) -> Batch:
    generator = torch.Generator().manual_seed(3)
    inputs = {m: torch.rand(1, 1, *size, generator=generator) for m in ("CT", "PET")}
    return Batch(inputs, {"CT": torch.tensor([True]), "PET": torch.tensor([has_pet])}, {})


@pytest.mark.parametrize("has_pet", [True, False])
@pytest.mark.parametrize(
    "view",
    [
        {"size": [16] * 3, "window": [16] * 3},
        {"size": [16] * 3, "window": [16] * 3, "mirrors": ["width"]},
        {"size": [24, 16, 24], "window": [16] * 3},
        {"size": [24, 16, 24], "window": [8, 16, 16], "overlap": 0.25, "mirrors": ["depth", "width"]},
    ],
)
def test_the_answer_is_the_linear_function_of_the_columns(view, has_pet):
    model = fitted(view)
    spec, batch = model.step.view, case(view["size"], has_pet=has_pet)
    chosen = torch.randperm(view["size"][0] * view["size"][1] * view["size"][2])[:300]
    with torch.no_grad():
        values, flags = columns_at(model, batch, chosen, spec)
        output = predict(
            model, batch, features=None, window=spec.window, overlap=spec.overlap, mirrors=list(spec.mirrors)
        )
    linear = model.parts["voxels"]
    known = flags[:, list(linear.columns.layout.flag_of)].double()
    expected = (known * (values.double() - linear.mean) / linear.scale) @ linear.weight.T + linear.bias
    found = (output[0, 1:] - output[0, :1]).flatten(1)[:, chosen].T.double()
    assert flags.tolist() == [[True, has_pet]] * 300
    assert torch.allclose(found, expected, atol=1e-3, rtol=1e-4)


def test_windows_are_those_that_answers_are_made_of():
    seen = []

    def look(part, places):
        seen.extend(tuple(place[2:]) for place in places)
        return part

    SlidingWindowInferer([8, 16, 8], 1, overlap=0.25, with_coord=True)(torch.zeros(1, 1, 20, 16, 24), look)
    assert seen == windows_over([20, 16, 24], [8, 16, 8], 0.25)


def test_mirrorings_are_all_combinations_the_plain_one_first():
    assert mirrorings([]) == [[]] and mirrorings(["height", "width"]) == [[], [1], [2], [1, 2]]
