"""Augmentation moves image and mask together and is a function of its generator."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from client.data.images.transforms import augment, drawn, random_window
from common.data.batch import CT, PET, Batch


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch_of(size: int = 6) -> Batch:
    """Mask and CT mark the same corner: the brightest voxel is the only foreground."""
    image = torch.full((size, 1, 4, 4, 6), -0.5)
    image[..., 0, 1, 2] = 0.5
    mask = (image > 0).to(torch.uint8)
    present = {CT: torch.ones(size, dtype=torch.bool), PET: torch.arange(size) % 2 == 0}
    pet = (image + 1) * present[PET].view(-1, 1, 1, 1, 1)
    return Batch({CT: image, PET: pet}, present, {"mask": mask, "voxel_mm3": torch.ones(size)})


def test_image_and_mask_are_mirrored_together():
    batch = batch_of(32)
    out = augment(batch, generator=seeded(0))
    columns = out.target["mask"].nonzero()[:, -1].tolist()
    assert set(columns) == {2, 3}  # both sides occur: 2 stays, 3 is mirrored
    bright = out.inputs[CT].flatten(1).argmax(1)
    assert torch.equal(bright, out.target["mask"].flatten(1).argmax(1))
    assert torch.equal(out.inputs[PET][::2].flatten(1).argmax(1), bright[::2])


def test_absent_modalities_stay_zero_and_inputs_are_not_changed_in_place():
    batch = batch_of()
    before = {name: tensor.clone() for name, tensor in batch.inputs.items()}
    out = augment(batch, generator=seeded(1))
    assert (out.inputs[PET][1::2] == 0).all() and (out.inputs[PET][::2] != 0).all()
    assert all(torch.equal(before[name], batch.inputs[name]) for name in before)
    assert out.inputs[CT].abs().max() <= 1 and not torch.equal(out.inputs[CT], batch.inputs[CT])
    assert (out.inputs[CT] - batch.inputs[CT]).flatten(1).median(1).values.abs().max() <= 0.1001


def test_same_seed_same_result_whatever_is_present():
    one, two = (augment(batch_of(), generator=seeded(5)) for _ in range(2))
    assert torch.equal(one.inputs[CT], two.inputs[CT])
    alone = batch_of()
    del alone.inputs[PET], alone.present[PET]
    assert torch.equal(augment(alone, generator=seeded(5)).inputs[CT], one.inputs[CT])


@given(st.integers(0, 1000), st.floats(0, 1))
def test_windows_have_their_size_and_cut_image_and_mask_alike(seed, foreground):
    image = torch.arange(7 * 9 * 8, dtype=torch.float32).view(1, 7, 9, 8)
    mask = (image % 2).to(torch.uint8)
    images, cut = random_window({CT: image}, mask, window=[3, 9, 5], generator=seeded(seed), foreground=foreground)
    assert images[CT].shape == cut.shape == (1, 3, 9, 5)
    assert torch.equal(cut, (images[CT] % 2).to(torch.uint8))
    again, _ = random_window({CT: image}, mask, window=[3, 9, 5], generator=seeded(seed), foreground=foreground)
    assert torch.equal(images[CT], again[CT])


def test_foreground_probability_is_kept():
    image, mask = torch.zeros(1, 40, 40, 40), torch.zeros(1, 40, 40, 40, dtype=torch.uint8)
    mask[0, 33, 5, 20] = 1
    draw = lambda p, s: random_window({CT: image}, mask, window=[4, 4, 4], generator=seeded(s), foreground=p)[1]  # noqa: E731
    assert all(draw(1.0, s).any() for s in range(50))
    assert sum(bool(draw(0.5, s).any()) for s in range(200)) in range(75, 126)
    assert not any(draw(0.0, s).any() for s in range(50))


def test_without_a_mask_windows_are_anywhere():
    image = torch.arange(5 * 5 * 5, dtype=torch.float32).view(1, 5, 5, 5)
    corners = {
        random_window({CT: image}, None, window=[4, 4, 4], generator=seeded(s))[0][CT][0, 0, 0, 0].item()
        for s in range(200)
    }
    assert len(corners) == 8


# ------------------------------------------------------------------------------------------------- modality draw


def test_one_draw_decides_for_the_whole_batch_and_hides_the_rest():
    batch = batch_of(4)
    batch.present[PET][:] = True
    shown = {
        tuple(bool(part.present[m].all()) for m in (CT, PET))
        for part in (drawn(batch, {"CT+PET": 1, "CT": 1, "PET": 1}, generator=seeded(i)) for i in range(20))
    }
    assert shown == {(True, True), (True, False), (False, True)}
    alone = drawn(batch, {"PET": 1.0, "CT": 0.0}, generator=seeded(0))
    assert not alone.present[CT].any() and not alone.inputs[CT].any()
    assert torch.equal(alone.inputs[PET], batch.inputs[PET]) and alone.target is batch.target


def test_a_case_without_the_drawn_image_shows_what_it_has():
    batch = batch_of(4)  # every second case has PET
    pet = drawn(batch, {"PET": 1.0, "CT": 1e-9}, generator=seeded(0))
    assert pet.present[PET].tolist() == [True, False, True, False]
    assert pet.present[CT].tolist() == [False, True, False, True]
    only_ct = Batch({CT: batch.inputs[CT]}, {CT: batch.present[CT]}, {})
    assert drawn(only_ct, {"CT+PET": 0.6, "CT": 0.2, "PET": 0.2}, generator=seeded(3)).present[CT].all()


def test_shares_follow_the_weights_and_the_seed():
    batch = batch_of(1)
    batch.present[PET][:] = True
    weights = {"CT+PET": 0.6, "CT": 0.2, "PET": 0.2}

    def draws(seed):
        generator = seeded(seed)
        parts = [drawn(batch, weights, generator=generator) for _ in range(400)]
        return [(bool(p.present[CT]), bool(p.present[PET])) for p in parts]

    found = draws(0)
    assert found == draws(0) != draws(1)
    assert 200 < found.count((True, True)) < 280 and 50 < found.count((True, False)) < 110


def test_without_a_draw_a_batch_is_the_very_same():
    batch = batch_of(2)
    assert drawn(batch, {}, generator=seeded(0)) is batch
