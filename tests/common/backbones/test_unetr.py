"""Unetr: MONAI's numbers from MONAI's checkpoint, whatever its prefix; PET tokens beside CT's; any grid."""

from pathlib import Path

import pytest
import torch
from monai.networks.nets.unetr import UNETR
from monai.networks.nets.vit import ViT

from common.backbones import load_backbone
from common.backbones.base import SEQUENCE
from common.backbones.unetr import PositionTable, Unetr, UnetrConfig, load_checkpoint, translated
from common.config.run import BackboneSpec
from common.data.batch import CT, PET
from common.errors import BackboneError

SIZE = (16, 32, 48)  # z, y, x: all different, so that a mixed-up axis shows
CONFIG = UnetrConfig(SIZE, (16, 16, 16), hidden=24, feedforward=48, layers=12, heads=4)


def monai(proj_type: str = "conv") -> UNETR:
    torch.manual_seed(1)
    return UNETR(
        in_channels=1, out_channels=3, img_size=SIZE[::-1], feature_size=2, hidden_size=24, mlp_dim=48, num_heads=4,
        proj_type=proj_type,
    ).eval()  # fmt: skip


def loaded(state: dict[str, torch.Tensor], folder: Path, *, wrapper: str | None = None) -> Unetr:
    torch.save({wrapper: state, "epoch": 3} if wrapper else state, folder / "weights.pt")
    backbone = Unetr(CONFIG)
    load_checkpoint(backbone, folder / "weights.pt")
    return backbone.freeze()


def there(*flags: bool) -> torch.Tensor:
    return torch.tensor(flags)


@pytest.mark.parametrize("proj_type", ["conv", "perceptron"])
def test_features_are_monais_on_the_same_volume_in_its_axes_and_range(tmp_path, proj_type):
    theirs = monai(proj_type)
    volume = torch.rand(2, 1, *SIZE) * 2 - 1
    with torch.no_grad():
        last, hidden = theirs.vit(((volume + 1) / 2).permute(0, 1, 4, 3, 2))
        features = loaded(theirs.state_dict(), tmp_path)({CT: volume}, {CT: there(True, True)})
    expected = [theirs.proj_feat(x).permute(0, 1, 4, 3, 2) for x in (hidden[3], hidden[6], hidden[9], last)]

    assert [tuple(x.shape) for x in features.pyramid] == [(2, 24, 1, 2, 3)] * 4
    for found, state in zip(features.pyramid, expected, strict=True):
        torch.testing.assert_close(found, state, atol=1e-5, rtol=0)
    torch.testing.assert_close(features.pooled["image"], last.mean(dim=1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("prefix", ["", "module.", "model.module.", "net.backbone."])
@pytest.mark.parametrize("wrapper", [None, "state_dict", "net"])
def test_prefixes_wrappers_and_the_decoder_do_not_matter(tmp_path, prefix, wrapper):
    state = monai().state_dict()
    plain = loaded(state, tmp_path)
    found = loaded({prefix + name: x for name, x in state.items()}, tmp_path, wrapper=wrapper)

    assert all(torch.equal(found.state_dict()[name], x) for name, x in plain.state_dict().items())


def test_a_plain_vision_transformer_loads_too(tmp_path):
    torch.manual_seed(1)
    vit = ViT(1, SIZE[::-1], (16, 16, 16), hidden_size=24, mlp_dim=48, num_layers=12, num_heads=4)
    state = {**vit.state_dict(), "blocks.0.cross_attn.to_q.weight": torch.zeros(24, 24)}  # as older MONAI saved it

    backbone = loaded(state, tmp_path)

    assert torch.equal(backbone.position.table, vit.patch_embedding.position_embeddings)


def test_split_projections_of_pemma_are_recognised():
    state = {f"vit.blocks.0.attn.proj_{part}.weight": torch.zeros(1) for part in "qkv"}
    assert sorted(translated(state)) == [f"layers.0.attn.to_{part}.weight" for part in "kqv"]


def test_everything_that_does_not_fit_is_named_at_once(tmp_path):
    state = dict(monai().state_dict())
    del state["vit.norm.bias"]
    state["vit.extra"] = torch.zeros(1)
    state["vit.blocks.2.mlp.linear1.bias"] = torch.zeros(3)

    with pytest.raises(BackboneError) as caught:
        loaded(state, tmp_path)

    assert str(caught.value) == (
        f"{tmp_path / 'weights.pt'} does not fit this UNETR encoder: 1 missing: norm.bias; 1 unexpected: extra; "
        "1 misshapen: layers.2.mlp.linear1.bias is (3,), not (48,). Check backbone.config against the checkpoint."
    )


def test_pet_beside_ct_is_one_sequence_read_at_the_ct_tokens(tmp_path):
    theirs = monai()
    backbone = loaded(theirs.state_dict(), tmp_path)
    ct, pet = torch.rand(2, 1, 1, *SIZE)
    with torch.no_grad():
        found = backbone(
            {CT: ct, PET: pet}, {CT: there(True), PET: there(True)}, {PET: backbone.ct_stem()}, join=SEQUENCE
        )
        both = [theirs.vit.patch_embedding(((x + 1) / 2).permute(0, 1, 4, 3, 2)) for x in (ct, pet)]
        x = torch.cat(both, dim=1)
        for block in theirs.vit.blocks:
            x = block(x)
        x = theirs.vit.norm(x)

    torch.testing.assert_close(found.pyramid[-1], theirs.proj_feat(x[:, :6]).permute(0, 1, 4, 3, 2), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.pooled["image"], x.mean(dim=1), atol=1e-5, rtol=0)


def test_cases_of_a_mixed_batch_are_computed_as_if_among_their_like():
    torch.manual_seed(0)
    backbone = Unetr(CONFIG).freeze()
    stems = {PET: backbone.ct_stem()}
    inputs = {CT: torch.randn(4, 1, *SIZE), PET: torch.randn(4, 1, *SIZE)}
    present = {CT: there(True, False, True, False), PET: there(True, True, False, False)}

    mixed = backbone(inputs, present, stems, join=SEQUENCE)

    for case in range(4):
        mine = [m for m in inputs if present[m][case]]
        found = [x[case] for x in (*mixed.pyramid, mixed.pooled["image"])]
        if not mine:
            assert not any(x.any() for x in found)
            continue
        alone = backbone({m: inputs[m][[case]] for m in mine}, {m: there(True) for m in mine}, stems, join=SEQUENCE)
        for a, b in zip(found, [x[0] for x in (*alone.pyramid, alone.pooled["image"])], strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


def test_positions_of_another_grid_are_interpolated_and_become_a_tasks_own():
    torch.manual_seed(0)
    table = PositionTable((2, 2, 2), 3)
    own = table.fit_for((2, 2, 2))
    assert torch.equal(own.table, table.table)
    assert own.table.requires_grad
    wider = table.fit_for((4, 2, 2))
    torch.testing.assert_close(wider(4, 2, 2), table(4, 2, 2))
    assert wider(4, 2, 2).shape == (4, 2, 2, 3)
    torch.testing.assert_close(wider(4, 2, 2)[0], table(2, 2, 2)[0])  # the border keeps the border's positions


def test_another_position_table_size_is_an_option(tmp_path):
    spec = BackboneSpec(kind="unetr", config="small", image_size=[16, 24, 32], random_seed=0)
    assert load_backbone(spec).position.grid == (2, 3, 4)
    with pytest.raises(BackboneError, match="not a whole number of patches"):
        load_backbone(BackboneSpec(kind="unetr", config="small", image_size=[16, 24, 33], random_seed=0))
