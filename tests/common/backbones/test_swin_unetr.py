"""SwinUnetr: MONAI's numbers from every kind of checkpoint that people have, and errors that name what does not fit."""

from pathlib import Path

import pytest
import torch
from monai.networks.nets.swin_unetr import SwinUNETR

from common.backbones import load_backbone
from common.backbones.base import SEQUENCE
from common.backbones.swin_unetr import SwinConfig, SwinUnetr, load_checkpoint
from common.config.run import BackboneSpec
from common.data.batch import CT, PET
from common.errors import BackboneError

SIZE = (32, 32, 64)
CONFIG = SwinConfig(feature_size=12, window=(7, 7, 7))


@pytest.fixture(scope="module")
def theirs() -> SwinUNETR:
    torch.manual_seed(1)
    return SwinUNETR(in_channels=1, out_channels=3, feature_size=12).eval()


def loaded(content: dict, folder: Path) -> SwinUnetr:
    torch.save(content, folder / "weights.pt")
    backbone = SwinUnetr(CONFIG)
    load_checkpoint(backbone, folder / "weights.pt")
    return backbone.freeze()


def test_features_are_monais_five_scales_on_the_same_volume_in_its_axes_and_range(tmp_path, theirs):
    backbone = loaded(theirs.state_dict(), tmp_path)
    volume = torch.rand(1, 1, *SIZE) * 2 - 1
    with torch.no_grad():
        expected = theirs.swinViT(((volume + 1) / 2).permute(0, 1, 4, 3, 2), normalize=True)
        features = backbone({CT: volume}, {CT: torch.tensor([True])})

    assert len(features.pyramid) == len(backbone.levels) == 5
    for found, state, level in zip(features.pyramid, expected, backbone.levels, strict=True):
        assert found.shape[1:] == (level.channels, *(n // s for n, s in zip(SIZE, level.stride, strict=True)))
        torch.testing.assert_close(found, state.permute(0, 1, 4, 3, 2), atol=1e-5, rtol=0)
    assert features.pooled["image"].shape == (1, 192)


def self_supervised(state: dict[str, torch.Tensor]) -> dict:
    """As ``model_swinvit.pt``: MONAI's `load_from` reads these names."""
    swin = {name.removeprefix("swinViT."): x for name, x in state.items() if name.startswith("swinViT.")}
    swin = {name.replace("linear", "fc") if ".mlp." in name else name: x for name, x in swin.items()}
    heads = {"norm.weight": torch.ones(3), "rotation_head.weight": torch.ones(4, 3), "conv.0.weight": torch.ones(1)}
    return {"epoch": 1, "state_dict": {f"module.{name}": x for name, x in (swin | heads).items()}}


def suprem(state: dict[str, torch.Tensor]) -> dict:
    return {"net": {f"module.backbone.{name}": x for name, x in state.items()}, "epoch": 2}


def disruptive(state: dict[str, torch.Tensor]) -> dict:
    """As MONAI's `filter_swinunetr` reads it: a second stage number."""
    swin = {name.replace("swinViT.", "encoder."): x for name, x in state.items() if name.startswith("swinViT.")}
    swin = {f"{name[:18]}0.{name[18:]}" if name.startswith("encoder.layers") else name: x for name, x in swin.items()}
    return {"model": {**swin, "encoder.mask_token": torch.zeros(1), "encoder.norm.weight": torch.ones(3)}}


def without_indices(state: dict[str, torch.Tensor]) -> dict:
    return {name: x for name, x in state.items() if "relative_position_index" not in name}


@pytest.mark.parametrize("form", [dict, self_supervised, suprem, disruptive, without_indices])
def test_every_kind_of_checkpoint_gives_the_same_backbone(tmp_path, theirs, form):
    plain, found = loaded(theirs.state_dict(), tmp_path), loaded(form(theirs.state_dict()), tmp_path)

    assert all(torch.equal(found.state_dict()[name], x) for name, x in plain.state_dict().items())


def test_our_self_supervised_names_are_those_that_monai_reads(theirs):
    torch.manual_seed(2)
    other = SwinUNETR(in_channels=1, out_channels=3, feature_size=12)
    other.load_from(self_supervised(theirs.state_dict()))

    assert all(torch.equal(a, b) for a, b in zip(other.swinViT.parameters(), theirs.swinViT.parameters(), strict=True))


def test_everything_that_does_not_fit_is_named_at_once(tmp_path, theirs):
    state = dict(theirs.state_dict())
    del state["swinViT.patch_embed.proj.bias"]
    state["swinViT.layers1c.0.layer.conv1.conv.weight"] = torch.zeros(1)  # the second version's extra blocks
    state["swinViT.layers4.0.downsample.norm.bias"] = torch.zeros(3)

    with pytest.raises(BackboneError) as caught:
        loaded(state, tmp_path)

    assert str(caught.value) == (
        f"{tmp_path / 'weights.pt'} does not fit this Swin UNETR encoder: 1 missing: patch_embed.proj.bias; "
        "1 unexpected: layers1c.0.layer.conv1.conv.weight; 1 misshapen: stages.3.downsample.norm.bias is (3,), not "
        "(768,). Check backbone.config against the checkpoint."
    )


def test_a_projection_joins_two_modalities_before_the_stages():
    torch.manual_seed(0)
    backbone = SwinUnetr(CONFIG).freeze()
    ct, pet = torch.randn(2, 2, 1, 32, 32, 32)
    seen = {}

    def only_pet(tokens, present):
        seen.update({name: tuple(x.shape) for name, x in tokens.items()}, rows=present[CT].tolist())
        return tokens[PET]

    present = {CT: torch.tensor([True, False]), PET: torch.tensor([True, True])}
    found = backbone({CT: ct, PET: pet}, present, {PET: backbone.ct_stem()}, join=only_pet)
    expected = backbone({CT: pet}, {CT: torch.tensor([True, True])})

    assert seen == {CT: (2, 16, 16, 16, 12), PET: (2, 16, 16, 16, 12), "rows": [True, False]}
    assert all(torch.equal(a, b) for a, b in zip(found.pyramid, expected.pyramid, strict=True))


def test_what_windows_cannot_do_is_refused_in_a_sentence():
    backbone = SwinUnetr(CONFIG).freeze()
    inputs, present = {CT: torch.zeros(1, 1, 32, 32, 32)}, {CT: torch.tensor([True])}
    with pytest.raises(BackboneError, match="cannot join modalities by 'beside'"):
        backbone(inputs, present, join=SEQUENCE)
    with pytest.raises(BackboneError, match="no position parameters of its own"):
        backbone.own_position((16, 16, 16))


def test_another_feature_size_is_an_option_of_this_kind_alone():
    assert (
        load_backbone(BackboneSpec(kind="swin_unetr", config="small", feature_size=24, random_seed=0)).token_dim == 24
    )
    with pytest.raises(BackboneError, match="not a positive multiple of 12"):
        load_backbone(BackboneSpec(kind="swin_unetr", config="small", feature_size=20, random_seed=0))
    with pytest.raises(BackboneError, match=r"Backbone unetr does not read backbone\.feature_size"):
        load_backbone(BackboneSpec(kind="unetr", config="small", feature_size=24, random_seed=0))
