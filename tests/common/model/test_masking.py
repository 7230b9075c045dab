"""Masked modelling: golden values of the loss, what is hidden does not count and what is seen does, fixed scores."""

import pytest
import torch

from common.backbones import load_backbone
from common.backbones.base import Backbone
from common.config.adapter import Adapter, FullPart
from common.config.run import BackboneSpec
from common.config.step import Step
from common.config.task import MaskedTask
from common.config.view import View
from common.data.batch import CT, EHR
from common.data.sources import source_of
from common.model.adapted import AdaptedModel
from common.model.masking import (
    MASK,
    SPECIAL,
    as_form,
    hidden_of,
    hide,
    hide_words,
    look,
    masked_loss,
    patches_of,
    seen_places,
)

SIDE = 16
TARGET = (torch.arange(12.0) / 10).reshape(1, 3, 4)
HIDDEN = torch.tensor([[1.0, 0.0, 1.0]])


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone(BackboneSpec(kind="dimension_free", config="tiny", random_seed=0))


def step_of(*sources: str, adapter: Adapter | None = None) -> Step:
    modalities = sorted({source.partition(":")[0] for source in sources})
    view = View(spacing_mm=[6.0] * 3, size=[SIDE] * 3, window=[SIDE] * 3)
    parts = adapter or Adapter({"encoder": FullPart()})
    return Step(name="s", task=MaskedTask(sources=list(sources)), modalities=modalities, view=view, adapter=parts)


def volumes(cases: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(cases, 1, SIDE, SIDE, SIDE, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_the_golden_values_of_the_masked_loss():
    nothing = torch.zeros_like(TARGET)
    assert masked_loss(nothing, TARGET, HIDDEN, normalized=False).item() == pytest.approx(0.475)
    assert masked_loss(nothing, TARGET, HIDDEN).item() == pytest.approx(0.7499550027, abs=1e-6)


def test_the_loss_is_unchanged_by_values_of_seen_patches():
    other = TARGET.clone()
    other[:, 1] = torch.tensor([9.0, -3.0, 1e6, 0.5])
    for normalized in (True, False):
        losses = [masked_loss(torch.ones_like(t), t, HIDDEN, normalized=normalized) for t in (TARGET, other)]
        assert torch.equal(*losses)


@pytest.mark.parametrize("text", ["CT", "CT:slices", "CT:projection"])
def test_the_encoder_never_sees_a_hidden_patch(backbone, text):
    source = source_of(text)
    image = as_form(volumes(2), source, in_training=False)
    number = patches_of(image, 8).shape[1]
    noise = torch.rand(2, number, generator=torch.Generator().manual_seed(1))
    view, _ = hide(image, source, noise=noise, share=0.0)
    changed = image.clone()
    for case in range(2):
        for place in hidden_of(view.seen, number)[case].nonzero()[:, 0].tolist():
            patch_at(changed, case, place).fill_(7.0)
    again, _ = hide(changed, source, noise=noise, share=0.0)
    tokens = look(backbone, view)
    assert not torch.equal(image, changed)
    assert tokens.shape[1] == 1 + max(1, int(number * 0.25))
    assert torch.equal(tokens, look(backbone, again))


def patch_at(image: torch.Tensor, case: int, place: int) -> torch.Tensor:
    """A view of one patch, counted as tokens are: the last axis fastest."""
    found = image[case, 0]
    for axis in reversed(range(found.ndim)):
        grid = image.shape[2 + axis] // 8
        found = found.narrow(axis, place % grid * 8, 8)
        place //= grid
    return found


def test_patches_are_in_the_order_of_the_encoders_tokens():
    for image in (volumes(1), volumes(1)[:, :, 3]):
        patches = patches_of(image, 8)
        for place in range(patches.shape[1]):
            assert torch.equal(patches[0, place], patch_at(image, 0, place).reshape(-1))


def test_seen_and_hidden_patches_are_all_patches():
    noise = torch.rand(3, 27, generator=torch.Generator().manual_seed(2))
    seen = seen_places(noise, share=0.75)
    hidden = hidden_of(seen, 27)
    assert seen.shape == (3, 6) and hidden.sum(dim=1).tolist() == [21.0] * 3
    assert (noise.gather(1, seen).amax(dim=1) <= noise.masked_fill(hidden == 0, 2.0).amin(dim=1)).all()
    assert seen_places(noise, share=0.999).shape == (3, 1)


def test_hidden_words_are_words_and_of_each_report_at_least_one():
    ids = torch.tensor([[2, 9, 8, 7, 6, 3, 0], [2, 9, 3, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0]])
    noise = torch.tensor([[0.0, 0.1, 0.2, 0.9, 0.05, 0.0, 0.0], [0.0, 0.9, 0.0, 0.0, 0.0, 0.0, 0.0], [0.5] * 7])
    replaced, words = hide_words(ids, noise=noise, share=0.15)
    assert words.tolist() == [[0, 9, 0, 0, 6, 0, 0], [0, 9, 0, 0, 0, 0, 0], [0] * 7]
    assert replaced.tolist() == [[2, MASK, 8, 7, MASK, 3, 0], [2, MASK, 3, 0, 0, 0, 0], [0] * 7]
    assert (words[words > 0] >= SPECIAL).all()


def test_a_score_depends_neither_on_order_nor_on_company(backbone):
    model = AdaptedModel(backbone, step_of("CT", "CT:slices", "EHR"), seed=0)
    reports = ["63 year old man. smoker.", "hpv positive.", "no finding. lung nodule is present in the chest."]
    inputs = {CT: volumes(3), EHR: backbone.tokenizer(reports)}
    present = {m: torch.ones(3, dtype=torch.bool) for m in inputs}
    with torch.no_grad():
        together = model(inputs, present)
        turned = model({m: x.flip(0) for m, x in inputs.items()}, present).flip(0)
        ones = [
            ({m: x[i : i + 1] for m, x in inputs.items()}, {m: p[:1] for m, p in present.items()}) for i in range(3)
        ]
        alone = [model(*one) for one in ones]
    torch.testing.assert_close(turned, together, atol=1e-6, rtol=0)
    torch.testing.assert_close(torch.cat(alone), together, atol=1e-5, rtol=0)
    assert torch.equal(together[:, :, 2], torch.ones(3, 3))


def test_in_training_what_is_hidden_is_drawn_anew(backbone):
    model = AdaptedModel(backbone, step_of("CT"), seed=0).train()
    inputs, present = {CT: volumes(2)}, {CT: torch.ones(2, dtype=torch.bool)}
    torch.manual_seed(1)
    one, two = (model.encode(inputs, present).shown["CT_volume"].view.seen for _ in range(2))
    torch.manual_seed(1)
    assert torch.equal(model.encode(inputs, present).shown["CT_volume"].view.seen, one)
    assert not torch.equal(one, two)


def test_a_case_without_the_source_teaches_nothing(backbone):
    model = AdaptedModel(backbone, step_of("CT", "EHR"), seed=0)
    ids = backbone.tokenizer(["hpv positive.", "smoker."])
    ids[1] = 0
    inputs = {CT: volumes(2), EHR: ids}
    present = {CT: torch.tensor([False, True]), EHR: torch.tensor([True, False])}
    output = model(inputs, present)
    assert output[0, 0].tolist() == output[1, 1].tolist() == [0.0, 0.0, 0.0]
    model.task.loss(output, None).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.trainable_parameters())


def test_words_are_no_part_of_everything_that_trains(backbone):
    model = AdaptedModel(backbone, step_of("EHR"), seed=0)
    names = {name.removeprefix("encoder/") for name in model.state() if name.startswith("encoder/")}
    everything = {name for name, _ in backbone.named_parameters()}
    assert everything - names == {"words.weight", "word_positions"}
