"""One table: every backbone keeps the promises that adapters, tasks and centers build on."""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from common.adapters.lora import target_modules
from common.backbones import backbone_digest, load_backbone
from common.backbones.base import SEQUENCE, Backbone, Features
from common.config.adapter import LoraPart
from common.config.run import BackboneSpec
from common.data.batch import CT, EHR, PET
from common.errors import BackboneError, UnknownName

ROOT = Path(__file__).resolve().parents[2]
SPECS = {
    "ct_clip": BackboneSpec(),
    "ct_clip_random": BackboneSpec(random_seed=0),
    "dimension_free": BackboneSpec(kind="dimension_free", config="tiny", random_seed=0),
    "shapes": BackboneSpec(kind="shapes", config="small", random_seed=0),
    "swin_unetr": BackboneSpec(kind="swin_unetr", config="small", random_seed=0),
    "tiny": BackboneSpec(kind="tiny"),
    "unetr": BackboneSpec(kind="unetr", config="small", random_seed=0),
}
REPORTS = ["63 year old man.", "smoker.", "hpv positive."]


@pytest.fixture(scope="module", params=SPECS)
def name(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def backbone(name) -> Backbone:
    return load_backbone(SPECS[name])


def batch(backbone: Backbone, *, times: tuple[int, int, int] = (1, 1, 1)) -> tuple[dict, dict]:
    """Three cases with everything, on the smallest grid times some."""
    generator = torch.Generator().manual_seed(0)
    size = [m * t for m, t in zip(backbone.multiple, times, strict=True)]
    inputs = {m: torch.rand(3, 1, *size, generator=generator) * 2 - 1 for m in (CT, PET)}
    inputs[EHR] = backbone.tokenizer(REPORTS)
    return inputs, {m: torch.ones(3, dtype=torch.bool) for m in inputs}


def tensors(features: Features) -> list[Tensor]:
    return [*features.pyramid, *(features.pooled[k] for k in sorted(features.pooled))]


def stems(backbone: Backbone) -> dict[str, nn.Module]:
    return {PET: backbone.ct_stem()}


def joins(backbone: Backbone) -> list[str | None]:
    return [None, SEQUENCE] if backbone.takes_sequence else [None]


# --------------------------------------------------------------------------------------------------------- identity


def test_frozen_in_evaluation_mode_and_unmoved_by_training_mode(backbone):
    before = backbone_digest(backbone)
    inputs, present = batch(backbone)
    expected = tensors(backbone(inputs, present))
    assert not backbone.training
    assert not any(p.requires_grad for p in backbone.parameters())

    try:
        found = tensors(backbone.train()(inputs, present))
    finally:
        backbone.eval()

    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert backbone_digest(backbone) == before


def test_digest_is_the_same_in_every_process():
    code = (
        "import json, sys; from common.backbones import backbone_digest, load_backbone; "
        "from common.config.run import BackboneSpec; "
        "print(*(backbone_digest(load_backbone(BackboneSpec(**s))) for s in json.loads(sys.argv[1])))"
    )
    specs = json.dumps([asdict(spec) for spec in SPECS.values()])
    switches = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "1"}
    other = subprocess.run([sys.executable, "-c", code, specs], cwd=ROOT, env=switches, capture_output=True, text=True)
    here = [backbone_digest(load_backbone(spec)) for spec in SPECS.values()]

    assert other.stdout.split() == here, other.stderr
    assert len(set(here)) == len(here)


def test_another_digest_than_the_planned_one_is_refused():
    right = backbone_digest(load_backbone(SPECS["ct_clip"]))
    load_backbone(BackboneSpec(digest=right))
    with pytest.raises(BackboneError) as caught:
        load_backbone(BackboneSpec(digest="0" * 64))
    assert str(caught.value) == (
        f"The weights of backbone ct_clip have the digest {right}, not backbone.digest {'0' * 64}; get the file that "
        "the run was planned with, or correct the digest."
    )


def test_a_random_seed_decides_the_weights_and_leaves_torchs_generator_alone(name):
    kind, config = SPECS[name].kind, SPECS[name].config
    before = torch.get_rng_state()
    one, again, other = (
        backbone_digest(load_backbone(BackboneSpec(kind=kind, config=config, random_seed=seed))) for seed in (5, 5, 6)
    )
    assert one == again != other
    assert torch.equal(torch.get_rng_state(), before)


def test_real_weights_are_asked_for_by_path():
    for kind, config in (("ct_clip", "released"), ("unetr", "small"), ("swin_unetr", "small")):
        with pytest.raises(BackboneError, match=r"does not ship with fedgraft: set backbone\.weights to your copy of"):
            load_backbone(BackboneSpec(kind=kind, config=config))


# ------------------------------------------------------------------------------------------------------------ sizes


@pytest.mark.parametrize("times", [(1, 1, 1), (1, 2, 1), (2, 1, 3)])
def test_any_multiple_is_a_size_and_levels_say_what_comes_out(backbone, times):
    inputs, present = batch(backbone, times=times)
    features = backbone({CT: inputs[CT], EHR: inputs[EHR]}, present)
    size = inputs[CT].shape[2:]

    assert [tuple(x.shape) for x in features.pyramid] == [
        (3, level.channels, *(n // s for n, s in zip(size, level.stride, strict=True))) for level in backbone.levels
    ]
    assert features.pooled["image"].shape == (3, backbone.image_dim)
    assert features.pooled["text"].shape == (3, backbone.text_dim)
    assert all(side % m == 0 for side, m in zip(backbone.native.size, backbone.multiple, strict=True))
    tokens = backbone.ct_stem()(inputs[CT])
    assert tokens.shape == (3, *(n // p for n, p in zip(size, backbone.patch, strict=True)), backbone.token_dim)


def test_a_volume_smaller_than_a_patch_or_not_a_multiple_is_refused_in_a_sentence(backbone):
    d, h, w = backbone.multiple
    for size in ((d, h // 2, w), (d, h, w + 1)):
        with pytest.raises(BackboneError) as caught:
            backbone({CT: torch.zeros(1, 1, *size)}, {CT: torch.tensor([True])})
        assert str(caught.value) == (
            f"A volume of {size} voxels (depth, height, width) is not a whole number of patches of {(d, h, w)}; choose "
            "view.window (and view.size) as multiples of the backbone's patch."
        )


def test_a_tasks_own_positions_start_where_the_frozen_ones_are(backbone):
    inputs, present = batch(backbone, times=(1, 2, 1))
    grid = tuple(backbone.ct_stem()(inputs[CT]).shape[1:4])
    try:
        position = backbone.own_position(grid)
    except BackboneError as error:
        assert len(backbone.levels) == 5 or "image_attention" not in backbone.sites, (
            error
        )  # windows, convolutions: none
        return
    assert all(p.requires_grad for p in position.parameters())
    found, expected = backbone(inputs, present, position=position), backbone(inputs, present)
    for a, b in zip(tensors(found), tensors(expected), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=0)
    nn.utils.vector_to_parameters(
        torch.randn(sum(p.numel() for p in position.parameters())) * 3, list(position.parameters())
    )
    assert not torch.allclose(backbone(inputs, present, position=position).pyramid[-1], expected.pyramid[-1])


# --------------------------------------------------------------------------------------------------------- presence


def test_an_absent_modality_is_the_same_as_one_that_was_not_passed(backbone):
    inputs, present = batch(backbone)
    nowhere = torch.zeros(3, dtype=torch.bool)
    for join in joins(backbone):
        for absent in ({PET}, {CT}, {EHR}, {PET, EHR}):
            passed = backbone(
                inputs, {m: nowhere if m in absent else present[m] for m in inputs}, stems(backbone), join=join
            )
            left_out = backbone(
                {m: x for m, x in inputs.items() if m not in absent}, present, stems(backbone), join=join
            )
            if EHR in absent:
                assert not passed.pooled.pop("text").any()
            for a, b in zip(tensors(passed), tensors(left_out), strict=True):
                torch.testing.assert_close(a, b, atol=1e-6, rtol=0)


def test_each_case_of_a_mixed_batch_is_the_case_alone_whatever_absent_tensors_hold(backbone):
    inputs, present = batch(backbone)
    present[CT], present[PET], present[EHR] = torch.tensor([[1, 0, 0], [1, 1, 0], [0, 1, 0]], dtype=torch.bool)
    for join in joins(backbone):
        mixed = tensors(backbone(inputs, present, stems(backbone), join=join))
        noisy = {m: torch.where(present[m].view(-1, *[1] * (x.ndim - 1)), x, 1) for m, x in inputs.items()}
        assert all(
            torch.equal(a, b)
            for a, b in zip(mixed, tensors(backbone(noisy, present, stems(backbone), join=join)), strict=True)
        )
        for case in range(3):
            own = {m: x[case : case + 1] for m, x in inputs.items()}
            there = {m: flags[case : case + 1] for m, flags in present.items()}
            for a, b in zip(mixed, tensors(backbone(own, there, stems(backbone), join=join)), strict=True):
                torch.testing.assert_close(a[case], b[0], atol=1e-5, rtol=0)
        assert not any(x[2].any() for x in mixed)  # a case with nothing is zero


def test_a_join_decides_what_goes_on_into_the_encoder(backbone):
    inputs, present = batch(backbone)
    present[CT] = torch.tensor([True, False, True])
    asked = {}

    def pet_only(tokens, there):
        asked.update(there)
        assert list(tokens) == [CT, PET]
        assert not tokens[CT][1].any()
        return tokens[PET]

    found = backbone({CT: inputs[CT], PET: inputs[PET]}, present, stems(backbone), join=pet_only)
    expected = backbone({CT: inputs[PET]}, {CT: present[PET]})

    assert all(torch.equal(a, b) for a, b in zip(tensors(found), tensors(expected), strict=True))
    assert {m: flags.tolist() for m, flags in asked.items()} == {CT: [True, False, True], PET: [True] * 3}


def test_tokens_stand_beside_each_other_or_that_is_refused(backbone):
    inputs, present = batch(backbone)
    volumes = {m: inputs[m] for m in (CT, PET)}
    if not backbone.takes_sequence:
        with pytest.raises(BackboneError, match=r"cannot join modalities by 'beside': it attends along fixed axes"):
            backbone(volumes, present, stems(backbone), join=SEQUENCE)
        return
    beside, added = (backbone(volumes, present, stems(backbone), join=join) for join in (SEQUENCE, None))
    alone = backbone({CT: inputs[CT]}, present, join=SEQUENCE)
    assert [x.shape for x in beside.pyramid] == [x.shape for x in alone.pyramid]
    for other in (added, alone):
        assert not torch.allclose(beside.pyramid[-1], other.pyramid[-1])
    with pytest.raises(BackboneError, match="cannot join modalities by 'besides'"):
        backbone(volumes, present, stems(backbone), join="besides")


def test_reports_alone_give_no_pyramid(backbone):
    inputs, present = batch(backbone)
    features = backbone({EHR: inputs[EHR]}, present)
    assert features.pyramid == []
    assert not features.pooled["image"].any()
    assert features.pooled["text"].any(dim=1).all()
    assert not torch.equal(features.pooled["text"][0], features.pooled["text"][1])


def test_stems_of_different_grids_are_refused(backbone):
    inputs, present = batch(backbone)

    class Coarse(nn.Module):
        def forward(self, volume: Tensor) -> Tensor:
            return torch.zeros(len(volume), 1, 1, 5, backbone.token_dim)

    with pytest.raises(BackboneError, match=r"different token grids .* give them the same patch"):
        backbone(inputs, present, {PET: Coarse()})


# -------------------------------------------------------------------------------------------------- precision, sites


def test_bf16_stays_near_fp32(backbone):
    inputs, present = batch(backbone)
    exact = backbone(inputs, present, stems(backbone))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = backbone(inputs, present, stems(backbone))
    for a, b in zip(exact.pyramid, rough.pyramid, strict=True):
        assert a.dtype == torch.float32
        assert (a - b.float()).norm() < 0.05 * a.norm()


def test_sites_match_linear_layers_in_full_and_every_block(backbone):
    layers = dict(backbone.named_modules())
    for site, pattern in backbone.sites.items():
        found = [match for layer in layers if (match := re.fullmatch(pattern, layer))]
        assert found, site
        assert all(isinstance(layers[match.string], nn.Linear | nn.Conv3d) for match in found)
        blocks = {next(int(group) for group in match.groups() if group) for match in found}
        assert blocks == set(range(backbone.blocks[site]))
        last = target_modules(backbone, LoraPart(sites=[site], depth=1))
        assert 0 < len(last) < len(found)


def test_an_unknown_site_is_refused_with_the_options(backbone):
    with pytest.raises(UnknownName) as caught:
        target_modules(backbone, LoraPart(sites=["image_atention"]))
    assert f"Known: {', '.join(sorted(backbone.sites))}. Did you mean 'image_" in str(caught.value)


def test_gradients_flow_from_every_level_to_a_stem(backbone):
    inputs, present = batch(backbone)
    stem = copy.deepcopy(backbone.ct_stem()).requires_grad_(True)
    for level in backbone({CT: inputs[CT]}, present, {CT: stem}).pyramid:
        [gradient, *_] = torch.autograd.grad(
            (level * torch.randn(level.shape)).sum(), list(stem.parameters()), retain_graph=True
        )
        assert gradient.abs().sum() > 0
