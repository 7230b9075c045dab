"""A case's own grid: answers and labels from grid to grid, in the smallest box and exactly as over the whole image."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from client.data.images import own_grid
from client.data.images.grids import Grid, resample
from client.data.images.nifti import Volume
from client.data.images.own_grid import Lattice, Patch, answer_on, moved, side_by_side, smallest


def spaced(shape, spacing=1.0, origin=0.0) -> Lattice:
    return Lattice(shape, nib.affines.from_matvec(np.diag(np.broadcast_to(spacing, 3)), np.broadcast_to(origin, 3)))


def whole(patch: Patch, lattice: Lattice) -> np.ndarray:
    return patch.within((0, 0, 0), lattice.shape)


def certain(labels: np.ndarray, channels: int) -> np.ndarray:
    """Probabilities (channels, D, H, W) of a label map (x, y, z)."""
    return np.eye(channels, dtype=np.float32)[labels.transpose(2, 1, 0)].transpose(3, 0, 1, 2)


def ball(lattice: Lattice, center, radius_mm: float) -> np.ndarray:
    points = nib.affines.apply_affine(lattice.affine, np.stack(np.indices(lattice.shape), axis=-1))
    return (((points - center) ** 2).sum(axis=-1) <= radius_mm**2).astype(np.uint8)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * float((a & b).sum()) / float(a.sum() + b.sum())


@pytest.mark.parametrize(
    ("milliliters", "expected", "spread"),
    [
        (8.2, {3.0: 0.95, 4.5: 0.91, 6.0: 0.88, 9.0: 0.79}, 0.025),
        (2.0, {3.0: 0.91, 4.5: 0.83, 6.0: 0.75, 9.0: 0.62}, 0.04),  # where it lies between the voxels matters
    ],
)
def test_the_ceiling_of_a_coarse_grid_is_that_of_a_ball(milliliters, expected, spread):
    """A mask that is perfect on a coarse grid, on a CT of 1 mm: HECKTOR's median primary tumor, and a small one."""
    radius = (3 * 1000 * milliliters / (4 * np.pi)) ** (1 / 3)
    ct = spaced((54, 54, 54))
    for spacing, value in expected.items():
        count = int(54 / spacing) + 1
        grid = Grid(np.zeros(3), np.full(3, spacing), (count, count, count))
        found = []
        for shift in np.random.default_rng(1).random((12, 3)):
            truth = ball(ct, 27 + spacing * shift, radius)
            coarse = resample(Volume(truth, ct.affine), grid, order=0, outside=0).astype(int)
            found.append(dice(whole(answer_on(certain(coarse, 2), grid.affine, ct), ct) > 0, truth > 0))
        assert np.mean(found) == pytest.approx(value, abs=spread), spacing


@pytest.mark.parametrize("seed", range(6))
def test_the_smallest_box_gives_what_the_whole_image_gives(seed, monkeypatch):
    """Against an interpolation of every voxel of the image: cutting the box, and working in slabs, changes nothing."""
    rng = np.random.default_rng(seed)
    monkeypatch.setattr(own_grid, "VOXELS_AT_ONCE", 300)
    logits = rng.normal(size=(3, 7, 6, 5)) + np.array([1.5, 0, 0]).reshape(3, 1, 1, 1)
    probabilities = (np.exp(logits) / np.exp(logits).sum(axis=0)).astype(np.float32)
    view = nib.affines.from_matvec(np.diag([4.0, 4.5, 5.0]), rng.uniform(-3, 3, 3))
    turn = np.diag([rng.choice([-1.0, 1.0]), 1.0, rng.choice([-1.0, 1.0])])
    image = Lattice((23, 21, 17), nib.affines.from_matvec(turn @ np.diag([1.3, 1.7, 2.9]), rng.uniform(-3, 20, 3)))
    to_view = (np.linalg.inv(view) @ image.affine).round(6)
    layers = [
        ndimage.affine_transform(
            values.transpose(2, 1, 0), to_view[:3, :3], offset=to_view[:3, 3], output_shape=image.shape,
            output=np.float32, order=1, mode="grid-constant", cval=float(place == 0),
        )
        for place, values in enumerate(probabilities)
    ]  # fmt: skip
    assert np.array_equal(whole(answer_on(probabilities, view, image), image), np.argmax(layers, axis=0))


def test_a_label_on_the_same_grid_is_not_resampled():
    lattice = spaced((6, 7, 8), 2.0)
    patch = smallest(np.random.default_rng(0).integers(0, 3, (6, 7, 8)).astype(np.uint8))
    assert moved(patch, lattice, spaced((6, 7, 8), 2.0)) is patch


def test_a_label_that_is_flipped_or_cut_or_finer_gets_the_nearest_voxel():
    ct = spaced((10, 10, 10), 2.0)
    labels = np.random.default_rng(0).integers(0, 3, (10, 10, 10)).astype(np.uint8)
    patch = smallest(labels)
    flipped = Lattice((10, 10, 10), nib.affines.from_matvec(np.diag([-2.0, 2, 2]), [18, 0, 0]))
    assert np.array_equal(whole(moved(patch, ct, flipped), flipped), labels[::-1])
    cut = spaced((4, 5, 6), 2.0, (4, 2, 6))
    assert np.array_equal(whole(moved(patch, ct, cut), cut), labels[2:6, 1:6, 3:9])
    finer = spaced((20, 20, 20), 1.0, -0.5)
    assert np.array_equal(whole(moved(patch, ct, finer), finer), labels.repeat(2, 0).repeat(2, 1).repeat(2, 2))
    far = spaced((4, 4, 4), 2.0, 500.0)
    assert not whole(moved(patch, ct, far), far).any()


def test_patches_stand_side_by_side_over_the_box_of_both():
    a, b = Patch(np.ones((2, 2, 2), np.uint8), (1, 1, 1)), Patch(np.full((1, 1, 3), 2, np.uint8), (4, 2, 0))
    left, right = side_by_side(a, b)
    assert left.shape == right.shape == (4, 2, 3) and left.sum() == 8 and right.sum() == 6
    assert np.argwhere(left)[0].tolist() == [0, 0, 1] and np.argwhere(right)[0].tolist() == [3, 1, 0]


def test_nothing_drawn_is_a_patch_of_background():
    assert not smallest(np.zeros((5, 5, 5), np.uint8)).labels.any()


def test_the_diagonal_is_the_farthest_that_two_voxels_can_be():
    assert spaced((4, 5, 1), (1.0, 1.0, 3.0)).diagonal_mm == 5.0
