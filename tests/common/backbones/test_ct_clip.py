"""CtClip: names and shapes of the released checkpoint, features, zero-shot scores, loading and its errors."""

import copy
import dataclasses
import re
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import save_file
from torch import nn

from common.backbones import backbone_digest, load_backbone
from common.backbones.base import NativeView, tensors_digest
from common.backbones.ct_clip import MINI, RELEASED, CtClip, CtClipConfig, load_checkpoint, prompt
from common.backbones.ctvit import CtvitConfig
from common.backbones.text import TextConfig
from common.config.run import BackboneSpec
from common.data.batch import CT, EHR, PET
from common.data.findings import FINDINGS
from common.errors import BackboneError, UnknownName

KEYS = Path(__file__).parents[3] / ".." / "shared" / "golden" / "ctvit_state_dict_keys.txt"
IMAGE = CtvitConfig(
    dim=16, codebook_size=8, image_size=8, patch_size=4, temporal_patch_size=2, heads=2, dim_head=8, spatial_depth=2,
    temporal_depth=2,
)  # fmt: skip
TEXT = TextConfig(vocabulary=512, hidden=12, layers=2, heads=2, intermediate=24, positions=32)
NATIVE = NativeView((6.0, 6.0, 6.0), (4, 8, 8), (-1000.0, 1000.0))
GLOBAL = CtClipConfig(IMAGE, TEXT, 10, "global", NATIVE, MINI.vocabulary)
FLATTEN = dataclasses.replace(GLOBAL, visual_pooling="flatten")


def build(config: CtClipConfig = GLOBAL, *, seed: int = 0, **options) -> CtClip:
    torch.manual_seed(seed)
    model = CtClip(config, **options)
    nn.init.normal_(model.text_transformer.embeddings.word_embeddings.weight)
    model.freeze()
    return model


def all_there(*names: str, cases: int) -> dict[str, torch.Tensor]:
    return {name: torch.ones(cases, dtype=torch.bool) for name in names}


@pytest.fixture(scope="module")
def model() -> CtClip:
    return build()


# ------------------------------------------------------------------------------------- names of the checkpoint


def golden_keys() -> dict[str, tuple[tuple[int, ...], str]]:
    if not KEYS.is_file():
        pytest.skip("the golden values of ../shared are not here")
    rows = (line.split("\t") for line in KEYS.read_text().splitlines() if "\t" in line)
    return {name: (tuple(int(n) for n in re.findall(r"\d+", shape)), kind.split()[0]) for name, shape, kind in rows}


def test_released_model_has_exactly_the_checkpoints_names_and_shapes():
    dropped = ("_extra.weight", "position_ids", "first_frame", "to_pixels")
    expected = {name: row for name, row in golden_keys().items() if not any(part in name for part in dropped)}
    with torch.device("meta"):
        released = CtClip(RELEASED)
    parameters = {name: (tuple(p.shape), "param") for name, p in released.named_parameters()}
    buffers = {name: (tuple(b.shape), "buffer") for name, b in released.named_buffers() if name in expected}

    assert len(golden_keys()) == 362  # 361 and position_ids
    assert parameters | buffers == expected
    assert set(released.state_dict()) == set(expected)


NARROW = dataclasses.replace(
    GLOBAL,
    image=dataclasses.replace(IMAGE, spatial_depth=4, temporal_depth=4),
    text=dataclasses.replace(TEXT, layers=12),
)  # the released depths


def released_checkpoint(seed: int) -> dict[str, torch.Tensor]:
    """Every key of ``CT-CLIP_v2.pt`` at a narrow width."""
    state = dict(build(NARROW, seed=seed).state_dict())
    for name in golden_keys():
        state.setdefault(name, torch.zeros(1))  # every key that the two encoders do not need
    return state


def test_released_checkpoint_at_a_narrow_width_loads_with_all_its_leftovers(tmp_path):
    source, target, state = build(NARROW, seed=1), build(NARROW, seed=2), released_checkpoint(1)
    torch.save(state, tmp_path / "CT-CLIP_v2.pt")

    load_checkpoint(target, tmp_path / "CT-CLIP_v2.pt")

    assert len(state) == len(golden_keys()) == 362
    assert backbone_digest(target) == backbone_digest(source)


def test_what_does_not_fit_a_released_checkpoint_is_named_at_once_and_nothing_is_loaded(tmp_path):
    target, state = build(NARROW, seed=2), released_checkpoint(1)
    before, path = backbone_digest(target), tmp_path / "CT-CLIP_v2.pt"
    del state["visual_transformer.enc_temporal_transformer.layers.3.1.null_kv"]
    state["visual_transformer.dec_spatial_transformer.norm_out.gamma"] = torch.zeros(16)
    state["text_transformer.encoder.layer.11.output.dense.bias"] = torch.zeros(768)
    torch.save(state, path)

    with pytest.raises(BackboneError) as caught:
        load_checkpoint(target, path)

    assert str(caught.value) == (
        f"{path} does not fit this CT-CLIP: "
        "1 missing: visual_transformer.enc_temporal_transformer.layers.3.1.null_kv; "
        "1 unexpected: visual_transformer.dec_spatial_transformer.norm_out.gamma; "
        "1 misshapen: text_transformer.encoder.layer.11.output.dense.bias is (768,), not (12,). "
        "Check backbone.config against the checkpoint."
    )
    assert backbone_digest(target) == before


def test_sites_match_whole_module_names_and_every_block():
    mini = CtClip(MINI)
    found = {
        site: [name for name, _ in mini.named_modules() if re.fullmatch(pattern, name)]
        for site, pattern in mini.sites.items()
    }

    assert {site: len(names) for site, names in found.items()} == {
        "image_attention": 2 * 4 * 3,
        "image_feedforward": 2 * 4 * 2,
        "text_attention": 2 * 2,
    }
    modules = dict(mini.named_modules())
    assert all(isinstance(modules[name], nn.Linear) for names in found.values() for name in names)
    for site, names in found.items():
        blocks = {int(re.fullmatch(mini.sites[site], name).group(1)) for name in names}
        assert blocks == set(range(mini.blocks[site]))


# ------------------------------------------------------------------------------------------------------ features


def test_features_have_the_promised_shapes(model):
    ids = model.tokenizer(["lung nodule", "no"])
    features = model({CT: torch.randn(2, 1, 4, 8, 12), EHR: ids}, all_there(CT, EHR, cases=2))

    assert [tuple(x.shape) for x in features.pyramid] == [(2, 16, 2, 2, 3)] * 4
    assert {name: tuple(x.shape) for name, x in features.pooled.items()} == {"image": (2, 16), "text": (2, 12)}


def test_rows_of_absent_modalities_are_zero_and_the_others_unchanged(model):
    ids = model.tokenizer(["lung nodule", "cardiomegaly"])
    ids[1] = 0
    ct = torch.randn(2, 1, 4, 8, 8)
    ct[0] = 0
    full = model({CT: ct, EHR: ids}, all_there(CT, EHR, cases=2))
    present = {CT: torch.tensor([False, True]), EHR: torch.tensor([True, False])}

    features = model({CT: ct, EHR: ids}, present)

    for state, whole in zip(features.pyramid, full.pyramid, strict=True):
        assert not state[0].any()
        assert torch.equal(state[1], whole[1])
    assert not features.pooled["image"][0].any()
    assert torch.equal(features.pooled["image"][1], full.pooled["image"][1])
    assert torch.equal(features.pooled["text"][0], full.pooled["text"][0])
    assert not features.pooled["text"][1].any()


def test_without_an_image_there_is_no_pyramid_and_without_a_report_no_text(model):
    ids = model.tokenizer(["cardiomegaly"])
    only_text = model({EHR: ids}, all_there(EHR, cases=1))
    only_image = model({CT: torch.randn(1, 1, 4, 8, 8)}, all_there(CT, cases=1))

    assert only_text.pyramid == []
    assert not only_text.pooled["image"].any()
    assert set(only_image.pooled) == {"image"}


def test_a_row_of_a_batch_equals_the_case_alone(model):
    ct, ids = torch.randn(3, 1, 4, 8, 8), model.tokenizer(["lung nodule", "no", "the heart is enlarged"])
    batch = model({CT: ct, EHR: ids}, all_there(CT, EHR, cases=3))
    for row in range(3):
        own = ids[row][ids[row] != 0][None]  # without the padding that longer reports of the batch bring
        alone = model({CT: ct[row : row + 1], EHR: own}, all_there(CT, EHR, cases=1))
        for found, expected in zip(alone.pyramid, batch.pyramid, strict=True):
            torch.testing.assert_close(found[0], expected[row], atol=1e-5, rtol=0)
        for name in ("image", "text"):
            torch.testing.assert_close(alone.pooled[name][0], batch.pooled[name][row], atol=1e-5, rtol=0)


def test_padding_does_not_change_a_report(model):
    ids = model.tokenizer(["lung nodule"])
    padded = torch.cat([ids, torch.zeros(1, 9, dtype=torch.int64)], dim=1)

    torch.testing.assert_close(model.text_latent(ids), model.text_latent(padded))


class Constant(nn.Module):
    """A stem that adds the same to every token."""

    def __init__(self, value: float):
        super().__init__()
        self.value = value

    def forward(self, volume: torch.Tensor) -> torch.Tensor:
        return torch.full((len(volume), 2, 2, 2, 16), self.value)


def test_stem_tokens_are_added_only_where_the_modality_is_present(model):
    volumes = torch.randn(3, 1, 4, 8, 8)
    volumes[2] = 0  # the third case has PET only
    inputs = {CT: volumes, PET: torch.randn(3, 1, 4, 8, 8)}
    present = {CT: torch.tensor([True, True, False]), PET: torch.tensor([False, True, True])}

    features = model(inputs, present, {PET: Constant(0.7)})

    ct_tokens = model.ct_stem()(volumes)
    tokens = torch.stack([ct_tokens[0], ct_tokens[1] + 0.7, torch.full_like(ct_tokens[2], 0.7)])
    expected = model.visual_transformer.encode(tokens)
    for found, state in zip(features.pyramid, expected.hidden, strict=True):
        assert torch.equal(found, state.permute(0, 4, 1, 2, 3))
    assert features.pooled["image"].any(dim=1).all()


def test_a_zero_stem_changes_no_bit(model):
    inputs = {CT: torch.randn(2, 1, 4, 8, 8), PET: torch.randn(2, 1, 4, 8, 8)}
    without = model(inputs, all_there(CT, PET, cases=2))
    attached = model(inputs, all_there(CT, PET, cases=2), {PET: Constant(0.0)})

    assert torch.equal(without.pooled["image"], attached.pooled["image"])
    assert all(torch.equal(a, b) for a, b in zip(without.pyramid, attached.pyramid, strict=True))


def test_training_mode_changes_neither_outputs_nor_tensors(model):
    inputs = {CT: torch.randn(2, 1, 4, 8, 8), EHR: model.tokenizer(["lung nodule", "no"])}
    present = all_there(CT, EHR, cases=2)
    before, expected = backbone_digest(model), model(inputs, present)

    training = copy.deepcopy(model).train()
    found = training(inputs, present)

    assert torch.equal(found.pooled["image"], expected.pooled["image"])
    assert torch.equal(found.pooled["text"], expected.pooled["text"])
    assert backbone_digest(training) == before


def test_gradients_reach_lora_in_both_encoders_through_the_codebook():
    model = build()
    both = f"{model.sites['image_attention']}|{model.sites['text_attention']}"
    inject_adapter_in_model(LoraConfig(r=2, target_modules=both), model, adapter_name="a")
    inputs = {CT: torch.randn(2, 1, 4, 8, 8), EHR: model.tokenizer(["lung nodule", "no"])}

    pooled = model(inputs, all_there(CT, EHR, cases=2)).pooled
    (pooled["image"] * torch.randn(2, 16)).sum().backward()
    (pooled["text"] * torch.randn(2, 12)).sum().backward()

    # B starts at zero, so the first gradient is B's.
    gradients = {name: p.grad for name, p in model.named_parameters() if "lora_B" in name}
    queries = [g for name, g in gradients.items() if "to_q" in name or "query" in name]
    assert len(queries) == 2 * 2 + 2
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients.values())


# ----------------------------------------------------------------------------------------------------- zero-shot


def test_zero_shot_is_the_log_odds_of_the_two_prompts(model):
    ct = torch.randn(3, 1, 4, 8, 8)
    scores = model.zero_shot({CT: ct}, FINDINGS[:2])

    image = model.image_latent(ct)
    for column, name in enumerate(FINDINGS[:2]):
        texts = model.text_latent(model.tokenizer([prompt(name, present=True), prompt(name, present=False)]))
        softmax = (image @ texts.T * model.temperature.exp()).softmax(dim=1)
        torch.testing.assert_close(scores[:, column].sigmoid(), softmax[:, 0])
    assert prompt("Lung nodule", present=True) == "Lung nodule is present."
    assert prompt("Lung nodule", present=False) == "Lung nodule is not present."


def test_prompts_are_read_once_until_a_text_weight_changes():
    model, ct, read = build(), torch.randn(1, 1, 4, 8, 8), []
    model.text_transformer.register_forward_hook(lambda *_: read.append(1))

    first = model.zero_shot({CT: ct}, FINDINGS)
    again = model.zero_shot({CT: ct}, FINDINGS)
    assert torch.equal(first, again)
    assert len(read) == 1

    with torch.no_grad():
        model.to_text_latent.weight.neg_()
    torch.testing.assert_close(model.zero_shot({CT: ct}, FINDINGS), -first)
    assert len(read) == 2


def test_an_adapted_text_side_is_never_answered_from_the_cache():
    model, ct = build(), torch.randn(1, 1, 4, 8, 8)
    first = model.zero_shot({CT: ct}, FINDINGS)
    inject_adapter_in_model(
        LoraConfig(r=2, target_modules=model.sites["text_attention"], init_lora_weights=False), model, adapter_name="a"
    )
    adapted = model.zero_shot({CT: ct}, FINDINGS)
    for module in model.modules():
        if isinstance(module, BaseTunerLayer):
            module.enable_adapters(False)

    assert not torch.allclose(adapted, first)
    torch.testing.assert_close(model.zero_shot({CT: ct}, FINDINGS), first)


def test_flattening_pools_over_depth_only_and_keeps_to_its_grid():
    model, ct = build(FLATTEN), torch.randn(2, 1, 6, 8, 8)
    quantized = model.visual_transformer(ct).quantized  # (B, 3, 2, 2, 16)
    expected = nn.functional.normalize(model.to_visual_latent(quantized.mean(1).reshape(2, -1)), dim=-1)

    torch.testing.assert_close(model.image_latent(ct), expected)
    with pytest.raises(BackboneError, match=r"native height and width \(8, 8\) only, got \(8, 12\)"):
        model.zero_shot({CT: torch.randn(1, 1, 4, 8, 12)}, FINDINGS)


def test_global_pooling_scores_any_grid_and_needs_a_ct(model):
    assert model.zero_shot({CT: torch.randn(2, 1, 2, 12, 4)}, FINDINGS).shape == (2, 18)
    with pytest.raises(BackboneError, match="reads CT, but the batch holds PET"):
        model.zero_shot({PET: torch.randn(1, 1, 4, 8, 8)}, FINDINGS)


# ------------------------------------------------------------------------------------------------------- loading


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_both_formats_give_the_same_backbone(tmp_path, suffix):
    source, target = build(seed=1), build(seed=2)
    path = tmp_path / f"weights{suffix}"
    state = {name: tensor.clone() for name, tensor in source.state_dict().items()}
    if suffix == ".pt":
        torch.save(state, path)
    else:
        save_file(state, path)

    load_checkpoint(target, path)

    assert backbone_digest(target) == backbone_digest(source)
    assert backbone_digest(build(seed=2)) != backbone_digest(source)


def test_the_projection_can_be_left_out(tmp_path):
    torch.save(build(FLATTEN, seed=1).state_dict(), tmp_path / "weights.pt")
    model = build(FLATTEN, projection=False)

    load_checkpoint(model, tmp_path / "weights.pt")

    assert not any(name.startswith("to_visual_latent") for name in model.state_dict())
    assert model({CT: torch.randn(1, 1, 4, 8, 12)}, all_there(CT, cases=1)).pooled["image"].shape == (1, 16)
    with pytest.raises(BackboneError, match="without its visual projection"):
        model.zero_shot({CT: torch.randn(1, 1, 4, 8, 8)}, FINDINGS)


class Code:
    """A pickle that leaves a file behind when it is opened carelessly."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


def test_code_in_a_checkpoint_is_refused_and_never_run(tmp_path):
    torch.save({"temperature": torch.zeros(()), "extra": Code(tmp_path / "ran")}, tmp_path / "odd.pt")

    with pytest.raises(BackboneError, match=r"plain state dict"):
        load_checkpoint(build(), tmp_path / "odd.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [{"net": {"epoch": 3}}, [torch.zeros(1)], {"epoch": 3}, {}])
def test_pickles_that_are_no_state_dict_are_refused(tmp_path, content):
    torch.save(content, tmp_path / "odd.pt")

    with pytest.raises(BackboneError, match=r"is not a plain state dict of named tensors"):
        load_checkpoint(build(), tmp_path / "odd.pt")


@pytest.mark.parametrize("name", ["cut.pt", "cut.safetensors"])
def test_damaged_and_absent_files_are_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"not a checkpoint")

    with pytest.raises(BackboneError, match=r"cannot be read|is damaged"):
        load_checkpoint(build(), tmp_path / name)
    with pytest.raises(BackboneError, match="There is no checkpoint"):
        load_checkpoint(build(), tmp_path / f"absent-{name}")


# ------------------------------------------------------------------------------------------- the closed registry


def test_the_shipped_mini_model_is_frozen_and_always_the_same():
    before = torch.get_rng_state()
    first, second = load_backbone(BackboneSpec()), load_backbone(BackboneSpec())

    assert backbone_digest(first) == backbone_digest(second)
    assert not first.training
    assert not any(p.requires_grad for p in first.parameters())
    assert torch.equal(torch.get_rng_state(), before)


def test_the_random_control_has_the_same_names_and_other_weights():
    shipped, control = load_backbone(BackboneSpec()), load_backbone(BackboneSpec(random_seed=5))
    again, other = load_backbone(BackboneSpec(random_seed=5)), load_backbone(BackboneSpec(random_seed=6))

    assert control.state_dict().keys() == shipped.state_dict().keys()
    assert len({backbone_digest(b) for b in (shipped, control, other)}) == 3
    assert backbone_digest(control) == backbone_digest(again)


def test_the_digest_sees_a_buffer_that_drifts():
    backbone = load_backbone(BackboneSpec())
    before = backbone_digest(backbone)
    backbone.visual_transformer.vq._codebook.embed[0, 0, 0] += 1e-6

    assert backbone_digest(backbone) != before
    assert tensors_digest(backbone.state_dict()) == backbone_digest(backbone)


def test_the_projection_is_an_option_of_a_run():
    state = load_backbone(BackboneSpec(projection=False)).state_dict()
    assert set(load_backbone(BackboneSpec()).state_dict()) - set(state) == {"to_visual_latent.weight"}


def test_unknown_names_and_absent_released_weights_say_what_to_do():
    with pytest.raises(UnknownName, match="Did you mean 'ct_clip'"):
        load_backbone(BackboneSpec(kind="ct_clap"))
    with pytest.raises(UnknownName, match="Known: mini, released"):
        load_backbone(BackboneSpec(config="maxi"))
