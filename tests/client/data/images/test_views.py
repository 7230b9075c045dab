"""Further views move image and mask together, keep the range of an image, and are functions of the generator alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from client.data.images.views import INTENSITY, ORDER, SPATIAL, changed
from common.config.options import VIEWS
from common.data.batch import CT, PET, Batch

SIDE = 16


def batch_of(size: int = 6) -> Batch:
    """The mask is where the CT is bright; every second case has a PET."""
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(size, 1, SIDE, SIDE, SIDE, generator=generator) * 0.2 - 0.9
    image[..., 5:11, 4:10, 6:12] = 0.9
    mask = (image > 0).to(torch.uint8)
    present = {CT: torch.ones(size, dtype=torch.bool), PET: torch.arange(size) % 2 == 0}
    pet = (image + 1) * present[PET].view(-1, 1, 1, 1, 1)
    return Batch({CT: image, PET: pet}, present, {"mask": mask, "voxel_mm3": torch.ones(size)})


def seen(views, seed: int = 1, batch: Batch | None = None) -> Batch:
    return changed(batch or batch_of(), views, generator=torch.Generator().manual_seed(seed))


def test_no_views_change_nothing_and_draw_nothing():
    batch, generator = batch_of(), torch.Generator().manual_seed(3)
    before = generator.get_state()
    assert changed(batch, [], generator=generator) is batch and torch.equal(generator.get_state(), before)


def test_every_declared_view_has_a_transform():
    assert {*VIEWS} == {*SPATIAL} | {*INTENSITY} == {*ORDER}


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_is_a_function_of_the_generator_and_changes_some_case(name):
    np.random.seed(0)
    one = seen([name], seed=2, batch=batch_of(12))
    np.random.seed(1)
    torch.manual_seed(9)
    two = seen([name], seed=2, batch=batch_of(12))
    assert torch.equal(one.inputs[CT], two.inputs[CT]) and torch.equal(one.target["mask"], two.target["mask"])
    assert not torch.equal(one.inputs[CT], batch_of(12).inputs[CT])
    assert not torch.equal(one.inputs[CT], seen([name], seed=3, batch=batch_of(12)).inputs[CT])


@pytest.mark.parametrize("name", sorted(SPATIAL))
def test_image_and_mask_move_together_and_the_mask_keeps_its_values(name):
    batch = batch_of(12)
    batch.target["mask"][batch.target["mask"] == 0] = 255  # ignored voxels stay ignored, nothing lies between
    out = seen([name], seed=2, batch=batch)
    assert out.target["mask"].dtype == torch.uint8 and {*out.target["mask"].unique().tolist()} <= {1, 255}
    bright, inside = out.inputs[CT] > 0, out.target["mask"] == 1
    overlap = 2 * (bright & inside).sum() / (bright.sum() + inside.sum())
    assert overlap > 0.9 and not torch.equal(inside, batch_of(12).target["mask"] == 1)


@pytest.mark.parametrize("name", sorted(INTENSITY))
def test_intensities_stay_within_the_images_own_range_and_leave_the_mask(name):
    out, batch = seen([name], batch=batch_of(12)), batch_of(12)
    assert torch.equal(out.target["mask"], batch.target["mask"])
    for modality in (CT, PET):
        low, high = batch.inputs[modality].min(), batch.inputs[modality].max()
        assert out.inputs[modality].min() >= low - 1e-6 and out.inputs[modality].max() <= high + 1e-6


def test_a_modality_that_is_absent_stays_zero_and_inputs_are_not_changed_in_place():
    batch = batch_of()
    before = {name: tensor.clone() for name, tensor in batch.inputs.items()}
    out = seen(list(VIEWS), batch=batch)
    assert not out.inputs[PET][1::2].any()
    assert all(torch.equal(before[name], batch.inputs[name]) for name in before)


def test_ct_is_seen_alike_with_and_without_a_pet():
    alone = batch_of()
    alone = Batch({CT: alone.inputs[CT]}, {CT: alone.present[CT]}, alone.target)
    views = list(VIEWS)
    assert torch.allclose(seen(views).inputs[CT], seen(views, batch=alone).inputs[CT], atol=1e-6)
