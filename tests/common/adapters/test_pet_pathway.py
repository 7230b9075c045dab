"""PEMMA's join: exactly CT's tokens at the start, and a case's answer depends on its own modalities only."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from common.adapters.decoder import LightDecoder
from common.adapters.fusion import Fusion
from common.adapters.pet_pathway import Pathway, Projection, StandIn, Uptake
from common.backbones.base import Level

DIM, GRID = 6, (2, 1, 2)


def pathway(*, trained: bool) -> Pathway:
    torch.manual_seed(0)
    projection, ct, pet = Projection(DIM), StandIn(DIM), StandIn(DIM)
    if trained:
        for module in (projection, ct, pet):
            for parameter in module.parameters():
                nn.init.normal_(parameter)
    return Pathway(projection, {"CT": ct, "PET": pet})


def tokens(has_ct, has_pet):
    generator = torch.Generator().manual_seed(1)
    present = {"CT": torch.tensor(has_ct), "PET": torch.tensor(has_pet)}
    drawn = {m: torch.randn(len(rows), *GRID, DIM, generator=generator) for m, rows in present.items()}
    return {m: x * present[m].view(-1, 1, 1, 1, 1) for m, x in drawn.items()}, present


def test_it_starts_as_the_ct_tokens_wherever_there_is_a_ct():
    values, present = tokens([True, True, False], [True, False, True])
    joined = pathway(trained=False)(values, present)
    assert torch.equal(joined[:2], values["CT"][:2])
    assert torch.equal(joined[2], values["PET"][2])  # alone, PET stands in for both


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()).filter(any), min_size=1, max_size=4))
def test_a_case_is_joined_as_if_it_were_alone(flags):
    join = pathway(trained=True)
    values, present = tokens(*zip(*flags, strict=True))
    joined = join(values, present)
    for row, (ct, pet) in enumerate(flags):
        mine = [m for m, has in (("CT", ct), ("PET", pet)) if has]
        alone = join({m: values[m][row : row + 1] for m in mine}, {m: present[m][row : row + 1] for m in mine})
        assert torch.allclose(alone[0], joined[row], atol=1e-5)


def test_what_pet_alone_trains_leaves_ct_alone_bit_identical():
    join = pathway(trained=True)
    values, present = tokens([True, True, False], [True, False, True])
    before = join(values, present)
    with torch.no_grad():
        for parameter in join.stand_ins["PET"].parameters():
            parameter += 1
    after = join({**values, "PET": values["PET"] * 2}, present)
    assert torch.equal(before[1], after[1])
    assert not torch.equal(before[0], after[0]) and not torch.equal(before[2], after[2])


def test_nothing_that_mixes_cases():
    batch_norms = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    levels = (Level(4, (2, 2, 2)), Level(8, (4, 4, 4)))
    assert not [m for part in (StandIn(6), LightDecoder(levels, features=2, outputs=2)) for m in part.modules()
                if isinstance(m, batch_norms)]  # fmt: skip


def test_the_light_decoder_is_a_thousandth_of_swin_unetr():
    levels = tuple(Level(48 * 2**i, (2 ** (i + 1),) * 3) for i in range(5))
    weights = sum(p.numel() for p in LightDecoder(levels, features=8, outputs=3).parameters())
    assert weights == 61_819
    assert weights / 62_269_701 < 0.001


def test_fusion_by_attention_asks_only_what_is_there():
    torch.manual_seed(0)
    fusion = Fusion([3, 5], 8, dropout=0.0, tokens=4).eval()
    image, text, patches = torch.randn(3, 3), torch.randn(3, 5), torch.randn(3, 6, 4)
    has_image, has_text = torch.tensor([True, False, False]), torch.tensor([True, True, False])
    given_ = [image * has_image[:, None], text * has_text[:, None]]
    output = fusion(given_, [has_image, has_text], patches, has_image)
    noise = patches.clone()
    noise[1:] += 1
    assert torch.equal(output, fusion(given_, [has_image, has_text], noise, has_image))
    assert torch.isfinite(output).all()  # also for a case that has nothing
    without = fusion(given_, [has_image, has_text], None, has_image)
    assert not torch.allclose(output[0], without[0]) and torch.allclose(output[1:], without[1:], atol=1e-6)


def test_uptake_starts_at_nothing_and_then_tells_absolute_values_apart():
    torch.manual_seed(0)
    part = Uptake(8, 2)
    pet = torch.rand(2, 1, 4, 4, 4)
    assert not part(pet).any()
    nn.init.normal_(part.outer.weight)
    assert not torch.allclose(part(pet), part(2 * pet), atol=1e-3)  # a norm would make these alike
    assert torch.equal(part(pet)[:1], part(pet[:1]))
