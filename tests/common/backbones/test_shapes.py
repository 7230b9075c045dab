"""The U-Net of shapes: a pyramid as declared, the same alone or in a batch, convolutions that adapters reach."""

from __future__ import annotations

import re

import pytest
import torch

from common.backbones.shapes import CONFIGS, CONVOLUTIONS, ShapesUnet, load_checkpoint
from common.errors import BackboneError


@pytest.fixture(scope="module")
def small() -> ShapesUnet:
    torch.manual_seed(0)
    return ShapesUnet(CONFIGS["small"]).freeze()


def features(net: ShapesUnet, volume: torch.Tensor):
    present = torch.ones(len(volume), dtype=torch.bool)
    return net({"CT": volume}, {"CT": present})


def test_levels_are_as_declared(small):
    found = features(small, torch.randn(2, 1, 16, 24, 32))
    for level, tensor in zip(small.levels, found.pyramid, strict=True):
        assert tuple(tensor.shape) == (
            2,
            level.channels,
            *(n // s for n, s in zip((16, 24, 32), level.stride, strict=True)),
        )
    assert found.pooled["image"].shape == (2, small.image_dim)


def test_a_case_is_the_same_alone_and_in_a_batch(small):
    volume = torch.randn(3, 1, 16, 16, 16, generator=torch.Generator().manual_seed(1))
    together, alone = features(small, volume).pyramid, features(small, volume[1:2]).pyramid
    assert all(torch.allclose(a[1:2], b, atol=1e-6) for a, b in zip(together, alone, strict=True))


def test_a_side_that_cannot_be_halved_three_times_is_refused(small):
    with pytest.raises(BackboneError, match="multiples of the backbone's patch"):
        features(small, torch.randn(1, 1, 12, 16, 16))


def test_every_convolution_of_the_stages_is_a_site(small):
    names = [name for name, module in small.named_modules() if isinstance(module, torch.nn.Conv3d)]
    found = [name for name in names if re.fullmatch(small.sites[CONVOLUTIONS], name)]
    assert {*names} - {*found} == {"patch_embed.first"}
    assert {int(re.fullmatch(small.sites[CONVOLUTIONS], name)[1]) for name in found} == set(range(6))


def test_the_base_fits_into_eight_megabytes():
    weights = sum(t.numel() for t in ShapesUnet().state_dict().values())
    assert 4 * weights < 8e6


def test_weights_come_back_and_others_are_named(small, tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "shapes.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in small.state_dict().items()}, path)
    again = ShapesUnet(CONFIGS["small"])
    load_checkpoint(again, path)
    assert all(torch.equal(a, b) for a, b in zip(small.state_dict().values(), again.state_dict().values(), strict=True))
    with pytest.raises(BackboneError, match="misshapen"):
        load_checkpoint(ShapesUnet(CONFIGS["base"]), path)
