"""Surfaces and lesions: identities in mm, a missed tumor as a distance, and where libraries differ."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from monai.metrics import compute_hausdorff_distance
from scipy.spatial import cKDTree

from common.metrics.surface import (
    HD95_CELLS,
    Lesions,
    Surfaces,
    hd95_cell,
    lesions,
    median_between,
    surfaces,
)

SPACING = (1.0, 1.5, 3.0)


def box(low, high, shape=(24, 24, 24)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
    return mask


def measured(predicted, truth, *, spacing=SPACING, tolerance=2.0, farthest=70.0):
    return surfaces(predicted, truth, spacing_mm=spacing, tolerance_mm=tolerance, farthest_mm=farthest)


def test_a_perfect_mask_is_at_no_distance_and_within_every_tolerance():
    mask = box((4, 5, 6), (12, 15, 14))
    assert measured(mask, mask, tolerance=0.0) == Surfaces(0.0, 1.0)


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("voxels", [1, 3])
def test_a_mask_moved_by_voxels_is_as_many_spacings_away(axis, voxels):
    mask = box((4, 4, 4), (14, 14, 14))
    there = measured(np.roll(mask, voxels, axis=axis), mask)
    assert there.hd95_mm == pytest.approx(voxels * SPACING[axis])
    assert measured(mask, np.roll(mask, voxels, axis=axis)).hd95_mm == pytest.approx(there.hd95_mm)


def test_a_missed_and_a_false_tumor_are_as_far_away_as_the_image_allows():
    """MONAI answers NaN or infinity to the same masks, and a mean over patients that skips NaN forgets the patient."""
    mask, nothing = box((4, 4, 4), (9, 9, 9)), np.zeros((24, 24, 24), bool)
    assert measured(nothing, mask) == measured(mask, nothing) == Surfaces(70.0, 0.0)
    assert measured(nothing, nothing) is None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shown = [
            float(
                compute_hausdorff_distance(
                    *(torch.tensor(m)[None, None] for m in pair), percentile=95, include_background=True
                )
            )
            for pair in ((nothing, mask), (mask, nothing), (nothing, nothing))
        ]
    assert not np.isfinite(shown).any()


def test_hd95_is_that_of_the_surfaces_elements_by_area():
    """Against a search for the nearest element among all pairs, on masks of any form."""
    rng = np.random.default_rng(0)
    coarse = rng.random((2, 6, 6, 6)) > 0.6
    a, b = (np.pad(x.repeat(3, 0).repeat(3, 1).repeat(3, 2), 2) for x in coarse)
    found = measured(a, b)

    def elements(mask):  # corners of eight voxels that are not all alike
        padded = np.pad(mask, 1)
        some = np.zeros(np.array(padded.shape) - 1, bool)
        every = np.ones_like(some)
        for dx in (0, 1):
            for dy in (0, 1):
                for dz in (0, 1):
                    part = padded[dx:, dy:, dz:][: some.shape[0], : some.shape[1], : some.shape[2]]
                    some, every = some | part, every & part
        return np.argwhere(some & ~every) * np.array(SPACING)

    points = elements(a), elements(b)
    nearest = [cKDTree(points[1]).query(points[0])[0], cKDTree(points[0]).query(points[1])[0]]
    plain = max(float(np.quantile(d, 0.95)) for d in nearest)
    assert found.hd95_mm == pytest.approx(plain, abs=1.0)  # by area, not by element
    assert found.hd95_mm <= max(float(d.max()) for d in nearest)
    share = np.mean(np.concatenate([d <= 2.0 for d in nearest]))
    assert found.surface_dice == pytest.approx(share, abs=0.05)


def test_surfaces_within_the_tolerance_agree():
    mask = box((6, 6, 6), (16, 16, 16))
    there = np.roll(mask, 1, axis=0)  # 1 mm
    assert measured(there, mask, tolerance=1.0).surface_dice == 1.0
    assert 0.5 < measured(there, mask, tolerance=0.5).surface_dice < 1.0


def test_distances_fall_into_the_histograms_cells():
    assert [hd95_cell(mm) for mm in (0.0, 0.99, 1.0, 7.9, 99.9, 100.0, 373.0)] == [0, 0, 1, 6, 13, 14, 14]
    assert HD95_CELLS == 15


def test_the_median_of_a_histogram_is_said_by_its_cells_bounds():
    counts = np.zeros(HD95_CELLS)
    assert median_between(counts) is None
    counts[[1, 3]] = (2, 3)
    assert median_between(counts) == (3.0, 4.0)
    counts[1] = 9
    assert median_between(counts) == (1.0, 2.0)
    counts[-1] = 40
    assert median_between(counts) == (100.0, None)
    counts[:] = 0
    counts[[0, -1]] = 1  # of two, one missed: not averaged away
    assert median_between(counts) == (100.0, None)


def test_lesions_are_paired_one_to_one_above_an_overlap_of_three_tenths():
    truth = box((2, 2, 2), (6, 6, 6)) | box((10, 10, 10), (14, 14, 14)) | box((18, 18, 18), (21, 21, 21))
    predicted = box((2, 2, 2), (6, 6, 6)) | box((10, 10, 10), (12, 12, 14)) | box((2, 18, 2), (4, 20, 4))
    # the first whole; of the second 16 of 64 voxels, under 0.3; the third missed; one false
    assert lesions(predicted, truth) == Lesions(found=1, false=2, missed=2)
    predicted |= box((10, 10, 10), (14, 12, 14))
    assert lesions(predicted, truth) == Lesions(found=2, false=1, missed=1)
    nothing = np.zeros_like(truth)
    assert lesions(nothing, truth) == Lesions(0, 0, 3) and lesions(truth, nothing) == Lesions(0, 3, 0)
    assert lesions(nothing, nothing) == Lesions(0, 0, 0)


def test_one_prediction_over_two_lesions_finds_one_of_them_at_most():
    truth = box((2, 2, 2), (6, 6, 6)) | box((7, 2, 2), (11, 6, 6))
    assert lesions(box((2, 2, 2), (11, 6, 6)), truth) == Lesions(found=1, false=0, missed=1)


def test_lesions_that_touch_at_a_corner_are_one():
    mask = box((2, 2, 2), (4, 4, 4)) | box((4, 4, 4), (6, 6, 6))
    assert lesions(mask, mask) == Lesions(1, 0, 0)
