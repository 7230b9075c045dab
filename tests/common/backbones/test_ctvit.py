"""CTViT against the reference implementation's numbers, then each of its traps by itself."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.backbones.base import tensors_digest
from common.backbones.ctvit import Attention, Ctvit, CtvitConfig, PositionBias, PositionGenerator, Quantizer
from common.errors import BackboneError

GOLDEN = Path(__file__).parents[3] / ".." / "shared" / "golden" / "ctvit_tiny.json"
TINY = CtvitConfig(
    dim=16, codebook_size=8, image_size=8, patch_size=4, temporal_patch_size=2, heads=2, dim_head=8, spatial_depth=2,
    temporal_depth=2,
)  # fmt: skip
UNBUILT = [
    *(f"to_patch_emb_first_frame.{i}.{kind}" for i in (1, 2, 3) for kind in ("weight", "bias")),
    *(f"{name}.0.{kind}" for name in ("to_pixels", "to_pixels_first_frame") for kind in ("weight", "bias")),
]


def tiny(seed: int = 0) -> Ctvit:
    torch.manual_seed(seed)
    return Ctvit(TINY).eval()


# ------------------------------------------------------------------------------------------------------- golden


@pytest.fixture(scope="module")
def golden() -> dict:
    if not GOLDEN.is_file():
        pytest.skip("the golden values of ../shared are not here")
    return json.loads(GOLDEN.read_text())


@pytest.fixture(scope="module")
def filled(golden) -> Ctvit:
    """The tiny encoder filled by the golden file's recipe, which numbers the keys of the whole reference model."""
    model = Ctvit(CtvitConfig(**golden["config"])).eval()
    state = model.state_dict()
    names = sorted([*state, *UNBUILT])
    assert len(names) == golden["n_state_dict_keys"]
    for number, name in enumerate(names):
        if name in state and state[name].numel():
            state[name] = _wave(name, number, state[name])
    state["vq._codebook.initted"].fill_(1)
    state["vq._codebook.cluster_size"].fill_(1)
    rows = state["vq._codebook.embed"]
    wave = torch.sin(0.7 * torch.arange(rows.numel(), dtype=torch.float64) + 0.3).reshape(rows.shape)
    state["vq._codebook.embed"] = F.normalize(wave, dim=-1).float()
    model.load_state_dict(state)
    return model


def _wave(name: str, number: int, tensor: Tensor) -> Tensor:
    values = 0.05 * torch.sin(0.37 * torch.arange(tensor.numel(), dtype=torch.float64) + 0.11 * number)
    if name.endswith(("gamma", "q_scale", "k_scale")) or (tensor.ndim == 1 and name.endswith(".weight")):
        values = values + 1
    return values.reshape(tensor.shape).to(tensor.dtype)


@pytest.fixture(scope="module")
def volume() -> Tensor:
    return torch.sin(0.01 * torch.arange(6 * 16 * 16, dtype=torch.float64)).float().reshape(1, 1, 6, 16, 16)


def test_every_stage_gives_the_reference_numbers(golden, filled, volume):
    with torch.no_grad():
        patches = filled.to_patch_emb(volume)
        encoded = filled(volume)
    last = encoded.hidden[-1].flatten()

    assert list(patches.shape) == golden["patch_tokens_shape"]
    _close(patches.flatten()[:4], golden["patch_first4"])
    _close(_summary(patches), golden["patch_mean_std_absmax"])
    _close(encoded.hidden[1].flatten()[:4], golden["after_spatial_first4"])
    _close(_summary(encoded.hidden[1])[:2], golden["after_spatial_mean_std"])
    _close(last[:4], golden["encode_preVQ_first4"])
    _close(last[-4:], golden["encode_preVQ_last4"])
    _close(_summary(last), golden["encode_preVQ_mean_std_absmax"])
    _close(encoded.quantized.flatten()[:4], golden["postVQ_first4"])
    assert encoded.indices.flatten().tolist() == golden["vq_indices"]


def test_position_bias_gives_the_reference_numbers(golden, filled):
    bias = filled.spatial_rel_pos_bias(4, 4)

    assert list(bias.shape) == golden["rel_pos_bias_shape"]
    _close(bias.flatten()[:4], golden["rel_pos_bias_first4"])


def _summary(x: Tensor) -> Tensor:
    return torch.stack([x.mean(), x.std(), x.abs().max()])


def _close(found: Tensor, expected: list[float]) -> None:
    torch.testing.assert_close(found.detach(), torch.tensor(expected), atol=2e-6, rtol=0)  # six decimals are given


# -------------------------------------------------------------------------------------------------------- traps


def test_keys_and_values_come_from_the_unnormalised_input():
    """With a zero scale in the norm every query is zero, so attention is the plain mean of the values of raw x."""
    torch.manual_seed(0)
    attention = Attention(16, heads=2, dim_head=8)
    nn.init.zeros_(attention.norm.gamma)
    x = torch.randn(3, 5, 16)
    values = attention.to_kv(x)[..., 16:]

    expected = attention.to_out(values.mean(dim=1, keepdim=True)).expand_as(x)

    torch.testing.assert_close(attention(x), expected)


def test_attention_is_the_published_formula():
    torch.manual_seed(1)
    attention = Attention(16, heads=1, dim_head=8)
    nn.init.normal_(attention.norm.gamma)
    nn.init.normal_(attention.q_scale)
    nn.init.normal_(attention.k_scale)
    x, bias = torch.randn(1, 4, 16), torch.randn(1, 4, 4)
    query = attention.to_q(F.layer_norm(x, (16,), attention.norm.gamma))
    key, value = attention.to_kv(x).chunk(2, dim=-1)
    query = query / query.norm(dim=-1, keepdim=True) * attention.q_scale
    key = key / key.norm(dim=-1, keepdim=True) * attention.k_scale

    expected = attention.to_out((8 * query @ key.transpose(1, 2) + bias).softmax(-1) @ value)

    torch.testing.assert_close(attention(x, bias), expected)


def test_the_temporal_stack_scrambles_positions_as_published():
    model = tiny()
    for layer in model.enc_temporal_transformer.layers:
        nn.init.zeros_(layer["1"].to_out.weight)
        nn.init.zeros_(layer["3"][4].weight)
    first, second = (layer["0"].dsconv for layer in model.enc_temporal_transformer.layers)
    with torch.no_grad():
        hidden = model(torch.randn(1, 1, 4, 12, 8)).hidden  # 2 x 3 x 2 tokens
        columns = hidden[1].permute(0, 2, 3, 1, 4)  # (B, h, w, d, C)
        scrambled = columns.reshape(1, 2, 3, 2, 16)  # read as (B, d, h, w, C)
        for conv in (first, second):
            scrambled = scrambled + _causal(conv, scrambled)
        corrected = hidden[1]
        for conv in (first, second):
            corrected = corrected + _causal(conv, corrected)
    expected = F.layer_norm(scrambled.reshape(1, 3, 2, 2, 16).permute(0, 3, 1, 2, 4), (16,))

    torch.testing.assert_close(hidden[3], expected)
    assert (hidden[3] - F.layer_norm(corrected, (16,))).abs().max() > 0.1


def _causal(conv: nn.Conv3d, x: Tensor) -> Tensor:
    padded = F.pad(x.permute(0, 4, 1, 2, 3), (1, 1, 1, 1, 2, 0))
    return F.conv3d(padded, conv.weight, conv.bias, groups=x.shape[-1]).permute(0, 2, 3, 4, 1)


def test_position_signal_never_looks_down_the_depth_axis():
    torch.manual_seed(0)
    position, x = PositionGenerator(4), torch.randn(1, 3 * 2 * 2, 4)
    changed = x.clone()
    changed[:, 4:] += 1  # the second and third slice

    first, second = position(x, (1, 3, 2, 2)), position(changed, (1, 3, 2, 2))

    assert torch.equal(first[:, :4], second[:, :4])
    assert not torch.equal(first[:, 4:], second[:, 4:])


def test_norm_shifts_are_zero_buffers_and_not_parameters():
    model = tiny()
    shifts = {name: buffer for name, buffer in model.named_buffers() if name.endswith(".beta")}

    assert len(shifts) == 4 * 2 + 2  # two norms a layer, one a stack
    assert all(not buffer.any() for buffer in shifts.values())
    assert not any(name.endswith(".beta") for name, _ in model.named_parameters())


def test_null_tokens_are_empty_and_still_a_key():
    shapes = {name: tuple(t.shape) for name, t in tiny().state_dict().items() if name.endswith("null_kv")}

    assert len(shapes) == 4
    assert set(shapes.values()) == {(2, 0, 8)}


@pytest.mark.parametrize("training", [True, False])
def test_quantizer_gives_the_stored_row_with_a_straight_gradient(training):
    quantizer = Quantizer(4, 3).train(training)
    rows = torch.tensor([[3.0, 0, 0, 0], [0, 0.5, 0, 0], [0, 0, 2.0, 0]])  # not unit: rows are returned as stored
    quantizer._codebook.embed.copy_(rows[None])
    x = torch.tensor([[0.3, 0.9, 0.2, 0.0], [5.0, 1.0, 0.0, 1.0]], requires_grad=True)  # nearest by angle only
    weights = torch.randn(2, 4)

    quantized, indices = quantizer(x)
    (quantized * weights).sum().backward()

    assert indices.tolist() == [1, 0]
    assert torch.equal(quantized, rows[[1, 0]])
    assert torch.equal(x.grad, weights)


def test_training_mode_neither_moves_a_buffer_nor_changes_an_output():
    model, volume = tiny(), torch.randn(2, 1, 4, 8, 8)
    model.vq._codebook.cluster_size.fill_(3.0)
    before, expected = tensors_digest(dict(model.named_buffers())), model(volume)

    model.train()
    found = model(volume)
    found.quantized.sum().backward()

    assert tensors_digest(dict(model.named_buffers())) == before
    assert torch.equal(found.quantized, expected.quantized)


def test_every_tensor_is_made_on_the_device_of_the_input():
    model, volume = tiny(), torch.randn(1, 1, 4, 8, 8)
    expected = model(volume).quantized

    with torch.device("meta"):  # a tensor made without naming a device would land here and not mix
        assert torch.equal(model(volume).quantized, expected)


# -------------------------------------------------------------------------------------------------- sizes, shapes


def test_bias_by_offset_equals_bias_by_pair():
    torch.manual_seed(0)
    module = PositionBias(8, heads=2)
    points = torch.cartesian_prod(torch.arange(3), torch.arange(2)).float()
    pairs = points[:, None] - points[None, :]
    expected = pairs.sign() * torch.log(pairs.abs() + 1)
    for layer in module.net:
        expected = layer(expected)

    torch.testing.assert_close(module(3, 2), expected.permute(2, 0, 1))


@pytest.mark.parametrize("size", [(2, 4, 4), (4, 8, 8), (6, 12, 4), (10, 4, 16)])
def test_any_whole_number_of_patches_fits(size):
    encoded = tiny()(torch.randn(2, 1, *size))

    grid = (size[0] // 2, size[1] // 4, size[2] // 4)
    assert [tuple(x.shape) for x in encoded.hidden] == [(2, *grid, 16)] * 4
    assert encoded.indices.shape == (2, *grid)


def test_a_broken_patch_is_refused_in_one_sentence():
    with pytest.raises(BackboneError, match=r"\(4, 7, 8\) voxels .* patches of \(2, 4, 4\)"):
        tiny()(torch.zeros(1, 1, 4, 7, 8))


def test_the_four_states_are_half_and_all_of_each_stack():
    torch.manual_seed(0)
    model = Ctvit(CtvitConfig(**{**TINY.__dict__, "spatial_depth": 4, "temporal_depth": 1})).eval()
    seen: list[Tensor] = []
    for stack in (model.enc_spatial_transformer, model.enc_temporal_transformer):
        for layer in stack.layers:
            layer.register_forward_hook(lambda _, __, out: seen.append(out))
        stack.norm_out.register_forward_hook(lambda _, __, out: seen.append(out))
    tokens = torch.randn(1, 2, 2, 2, 16)

    hidden = model.encode(tokens).hidden

    spatial = [seen[1], seen[4]]  # after two of four layers; after the norm
    temporal = [seen[5], seen[6]]  # after the only layer; after the norm
    for found, expected in zip(hidden[:2], spatial, strict=True):
        assert torch.equal(found, expected.reshape(tokens.shape))
    for found, expected in zip(hidden[2:], temporal, strict=True):
        assert torch.equal(found, expected.reshape(1, 2, 2, 2, 16).permute(0, 3, 1, 2, 4))
