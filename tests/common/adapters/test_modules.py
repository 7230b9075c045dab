"""Parts of their own: shapes on odd patches, exact zeros at the start, gradients that can leave zero."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from common.adapters import Surroundings, build_part
from common.adapters.decoder import Decoder, level_scales
from common.adapters.patch_embed import build_stem
from common.adapters.pet_pathway import Skip
from common.backbones.tiny import TinyBackbone
from common.config.adapter import LoraPart, MlpPart, PatchEmbedPart
from common.errors import AdapterError, UnknownName

TINY = Surroundings(TinyBackbone(), 3, (8,), (8, 8, 8), (16, 16, 16))


def test_short_axes_are_doubled_last():
    assert level_scales((8, 8, 8)) == [(2, 2, 2)] * 3
    assert level_scales((4, 8, 8)) == [(1, 2, 2), (2, 2, 2), (2, 2, 2)]
    assert level_scales((1, 1, 1)) == [(1, 1, 1)]
    assert level_scales((10, 20, 20)) == []


@pytest.mark.parametrize(
    "patch", [(1, 1, 1), (2, 2, 2), (4, 8, 8), (8, 8, 8), (2, 16, 16), (32, 8, 8), (10, 20, 20), (3, 5, 5)]
)
def test_decoder_reaches_every_voxel_from_any_patch(patch):
    decoder = Decoder(6, patch, features=2, outputs=3)
    grid = (2, 1, 2)
    size = [n * side for n, side in zip(grid, patch, strict=True)]
    pyramid = [torch.randn(1, 6, *grid, requires_grad=True) for _ in range(4)]
    logits = decoder(pyramid, decoder.skip_from(torch.randn(1, 1, *size)))
    assert list(logits.shape) == [1, 3, *size]
    logits.square().sum().backward()
    assert all(level.grad.abs().sum() > 0 for level in pyramid)  # every hidden state is used
    assert all(p.grad is not None for p in decoder.parameters())


def test_decoder_is_light():
    weights = sum(p.numel() for p in Decoder(96, (8, 8, 8), features=8, outputs=3).parameters())
    assert weights == 165_779


@pytest.mark.parametrize("make", [lambda: build_stem(TinyBackbone(), init="zero", modality="PET"), lambda: Skip(4)])
def test_zero_start_is_exact_and_can_be_left(make):
    part = make()
    volume = torch.randn(2, 1, 16, 16, 16)
    before = part(volume)
    assert (before == 0).all()
    (before - 1).square().sum().backward()
    with torch.no_grad():
        for parameter in part.parameters():
            parameter -= 0.01 * parameter.grad
    after = part(volume)
    assert (after != 0).any()
    after.square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in part.parameters())  # now the gradient reaches every tensor


def test_copied_stem_starts_as_the_ct_embedding_with_weights_of_its_own():
    backbone = TinyBackbone()
    stem = build_stem(backbone, init="copy", modality="PET")
    volume = torch.randn(1, 1, 8, 16, 8)
    assert torch.equal(stem(volume), backbone.image_embed(volume))
    assert all(p.requires_grad for p in stem.parameters())
    assert not {p.data_ptr() for p in stem.parameters()} & {p.data_ptr() for p in backbone.parameters()}


def test_no_part_holds_batch_norm():
    parts = [
        Decoder(6, (8, 8, 8), features=2, outputs=3),
        Skip(4),
        build_stem(TinyBackbone(), init="zero", modality="PET"),
    ]
    batch_norms = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    assert not [m for part in parts for m in part.modules() if isinstance(m, batch_norms)]
    assert not [b for part in parts for b, _ in part.named_buffers()]  # nothing that drifts in train()


def test_what_does_not_fit_is_refused_in_a_sentence():
    with pytest.raises(
        UnknownName, match=r"Unknown adapter part 'lora'. Known: decoder, full, fusion, join, linear, lora, mlp"
    ):
        build_part(LoraPart(), TINY)  # injected, never built on its own
    with pytest.raises(UnknownName, match=r"Unknown input of an mlp part 'images'. Known: image, text."):
        build_part(MlpPart(input="images"), TINY)
    with pytest.raises(UnknownName, match=r"Unknown initialisation of a patch_embed part 'zeros'. Known: copy, zero."):
        build_part(PatchEmbedPart(init="zeros"), TINY)
    with pytest.raises(AdapterError, match="for a modality other than CT"):
        build_part(PatchEmbedPart(modality="CT"), TINY)
