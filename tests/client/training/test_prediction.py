"""Predictions: kept features change nothing, and windows over a volume of one window are the window."""

from dataclasses import replace

import torch

from client.training.prediction import answered, features_of, predict
from common.backbones import load_backbone
from common.data.batch import Batch
from common.model.adapted import AdaptedModel
from tests.helpers.small import small_run


def model_of(name="tumour_ct"):
    run = small_run(steps=["tumour_ct", "tumour_ctpet"])
    return AdaptedModel(load_backbone(run.backbone), run.steps[name], seed=1)


def batch(side=16, modalities=("CT",), size=2):
    generator = torch.Generator().manual_seed(3)
    inputs = {m: torch.rand(size, 1, side, side, side, generator=generator) for m in modalities}
    return Batch(inputs, {m: torch.ones(size, dtype=torch.bool) for m in modalities}, {})


def test_kept_features_give_the_same_output(monkeypatch):
    model, cases, kept = model_of(), batch(), {}
    with torch.no_grad():
        direct = predict(model, cases, features=None, window=[16] * 3)
        features = features_of(model, cases, kept=kept, indices=[4, 7])
        assert torch.allclose(predict(model, cases, features=features, window=[16] * 3), direct, atol=1e-6)
        monkeypatch.setattr(model, "encode", None)  # from now on nothing may be encoded
        swapped = features_of(model, cases, kept=kept, indices=[7, 4])
    assert set(kept) == {4, 7} and torch.equal(swapped.pyramid[0], features.pyramid[0].flip(0))


def test_a_larger_volume_is_seen_through_windows():
    model, cases = model_of(), batch(side=24)
    with torch.no_grad():
        output = predict(model, cases, features=None, window=[16] * 3)
    assert output.shape == (2, 3, 24, 24, 24) and torch.isfinite(output).all()
    one = Batch({"CT": cases.inputs["CT"][:1]}, {"CT": cases.present["CT"][:1]}, {})
    with torch.no_grad():
        assert torch.allclose(predict(model, one, features=None, window=[16] * 3), output[:1], atol=1e-5)


def test_windows_keep_each_cases_own_modalities():
    model, cases = model_of("tumour_ctpet"), batch(side=24, modalities=("CT", "PET"))
    with torch.no_grad():
        for name, tensor in model.state().items():
            if name.startswith(("stem_pet", "skip_pet")):
                dict(model._tensors())[name].copy_(torch.full_like(tensor, 0.1))
        both = predict(model, cases, features=None, window=[16] * 3)
        cases.present["PET"] = torch.tensor([True, False])
        first_only = predict(model, cases, features=None, window=[16] * 3)
    assert torch.equal(both[0], first_only[0]) and not torch.allclose(both[1], first_only[1])


def test_mirrored_views_are_averaged_after_they_are_mirrored_back():
    model, cases = model_of(), batch()
    window = [16] * 3
    with torch.no_grad():
        plain = predict(model, cases, features=None, window=window)
        turned = Batch({"CT": cases.inputs["CT"].flip(4)}, cases.present, {})
        back = predict(model, turned, features=None, window=window).flip(4)
        found = predict(model, cases, features=None, window=window, mirrors=["width"])
        every = predict(model, cases, features=None, window=window, mirrors=["depth", "height", "width"])
        mirrored = predict(model, turned, features=None, window=window, mirrors=["depth", "height", "width"])
    assert torch.allclose(found, (plain + back) / 2, atol=1e-6) and not torch.allclose(found, plain, atol=1e-4)
    assert torch.allclose(every, mirrored.flip(4), atol=1e-5)  # all eight views of one volume are those of its mirror


def test_an_answer_follows_the_steps_declaration():
    model, cases = model_of(), batch(side=32, size=1)
    step = model.step
    view = replace(step.view, size=[32] * 3, window=[16] * 3, overlap=0.25, mirrors=["width"])
    declared = replace(step, view=view, task=replace(step.task, smallest_ml=1e6))
    with torch.no_grad():
        raw = predict(model, cases, features=None, window=[16] * 3, overlap=0.25, mirrors=["width"])
        found = answered(model, cases, declared)
        wide = predict(model, cases, features=None, window=[16] * 3, mirrors=["width"])
    background = raw.argmax(dim=1) == 0
    kept = background[:, None].expand_as(raw)
    assert torch.equal(found[kept], raw[kept]) and not bool(found.argmax(dim=1).any())
    assert not torch.allclose(wide, raw, atol=1e-4)
