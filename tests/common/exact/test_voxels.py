"""Voxels as rows: columns in one order everywhere, even draws, a module that is the linear model, best thresholds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from common.backbones.base import Level
from common.config.adapter import Adapter, VoxelLinearPart
from common.config.federation import NewtonFederation
from common.config.step import Step
from common.config.task import SegmentationTask
from common.errors import AdapterError
from common.exact.thresholds import FURTHEST, SCORE_BINS, best_thresholds, score_histograms
from common.exact.voxels import (
    LARGEST_SUMS,
    USUAL_SUMS,
    VoxelLinear,
    at_voxels,
    blurred,
    drawn_voxels,
    sums_bytes,
    voxel_columns,
)

LEVELS = (Level(2, (1, 1, 1)), Level(3, (2, 2, 2)))


def step(part: VoxelLinearPart) -> Step:
    return Step(
        name="voxels", modalities=["CT", "PET"], task=SegmentationTask(), adapter=Adapter({"voxels": part}),
        federation=NewtonFederation(),
    )  # fmt: skip


def columns(**options: object):
    part = VoxelLinearPart(**options)  # type: ignore[arg-type]
    return voxel_columns(step(part), LEVELS, part)


def maps_of(columns, *, seed: int = 0, size=(4, 6, 8)):
    generator = torch.Generator().manual_seed(seed)
    pyramid = [torch.randn(1, 4, *size, generator=generator)]
    pyramid += [torch.randn(1, 6, *(side // 2 for side in size), generator=generator)]
    inputs = {name: torch.randn(1, 1, *size, generator=generator) for name in ("CT", "PET")}
    return columns.maps(pyramid, inputs), inputs


def test_columns_are_named_by_modality_in_the_order_of_the_maps():
    found = columns(blurs=[1.0], levels=[1])
    assert found.names("CT") == ("raw", "blur1", "level1.0", "level1.1", "level1.2")
    assert found.layout.values[:2] == ("CT.raw", "CT.blur1") and found.layout.values[5] == "PET.raw"
    assert found.layout.flags == ("CT", "PET") and found.layout.flag_of == (0,) * 5 + (1,) * 5
    maps, inputs = maps_of(found)
    values = at_voxels(maps, torch.arange(4 * 6 * 8), (4, 6, 8))
    assert values.shape == (192, len(found.layout.values))
    assert torch.equal(values[:, 5], inputs["PET"].flatten())


@pytest.mark.parametrize(("levels", "width"), [(None, 6), ([], 1), ([0], 3)])
def test_levels_may_be_all_none_or_some(levels, width):
    assert len(columns(levels=levels).names("CT")) == width


def test_levels_that_nobody_declared_stay_below_half_a_megabyte():
    part = VoxelLinearPart()
    shapes = tuple(Level(width, (2**n,) * 3) for n, width in enumerate((24, 24, 48, 96)))
    for structures, expected in (("GTV",), (0, 1, 2)), (("GTVp", "GTVn"), (0, 1, 2)):
        asked = step(part)
        asked.task = SegmentationTask(structures=list(structures))
        found = voxel_columns(asked, shapes, part)
        assert tuple(place for place, _ in found.levels) == expected
        assert sums_bytes(found, len(structures)) < USUAL_SUMS


def test_of_levels_that_are_equally_fine_the_deepest_is_taken():
    part, tokens = VoxelLinearPart(), (Level(96, (8, 8, 8)),) * 4
    assert voxel_columns(step(part), tokens, part).levels == ((3, 96),)


def test_sums_are_counted_as_they_travel():
    found = columns(levels=[])
    assert sums_bytes(found, 2) == 8 * 2 * (1 + 3 + 6)


def test_more_sums_than_anybody_should_send_are_refused():
    part = VoxelLinearPart(levels=[0])
    with pytest.raises(
        AdapterError, match=rf"4002 columns for 2 structures.* {LARGEST_SUMS / 1e6:.0f} MB are the most"
    ):
        voxel_columns(step(part), (Level(2000, (1, 1, 1)),), part)


def test_a_level_that_there_is_not_is_named():
    with pytest.raises(AdapterError, match=r"levels \[2\].*has 2, from 0"):
        columns(levels=[2])


def test_a_blur_is_scipys():
    volume = torch.randn(1, 1, 7, 9, 11, generator=torch.Generator().manual_seed(1))
    expected = ndimage.gaussian_filter(volume[0, 0].numpy(), 1.5, mode="nearest", truncate=3.0, radius=4)
    assert np.allclose(blurred(volume, 1.5)[0, 0].numpy(), expected, atol=1e-6)


def test_the_module_is_the_linear_model_of_the_same_columns():
    found, size = columns(blurs=[1.0]), (4, 6, 8)
    maps, _ = maps_of(found)
    module, generator = VoxelLinear(found, 2), torch.Generator().manual_seed(5)
    with torch.no_grad():
        for tensor in (module.mean, module.weight, module.bias):
            tensor.copy_(torch.randn(tensor.shape, generator=generator, dtype=torch.float64))
        module.scale.copy_(0.5 + torch.rand(module.scale.shape, generator=generator, dtype=torch.float64))
        logits = module(maps, [torch.ones(1, dtype=torch.bool)] * 2, size)
    values = at_voxels(maps, torch.arange(192), size).double()
    expected = ((values - module.mean) / module.scale) @ module.weight.T + module.bias
    assert logits.shape == (1, 3, *size) and torch.equal(logits[:, 0], torch.zeros(1, *size))
    assert torch.allclose(logits[0, 1:].flatten(1).T.double(), expected, atol=1e-4)


def test_a_missing_modality_counts_as_the_average():
    found = columns()
    maps, _ = maps_of(found)
    module = VoxelLinear(found, 1)
    per = len(found.names("CT"))
    with torch.no_grad():
        module.weight.fill_(1.0)
        module.mean.fill_(3.0)
        only_ct = [*maps[:3], *(torch.zeros_like(level) for level in maps[3:])]
        absent = module(only_ct, [torch.tensor([True]), torch.tensor([False])], (4, 6, 8))
        module.mean[per:] = 0.0
        average = module(only_ct, [torch.tensor([True]), torch.tensor([True])], (4, 6, 8))
    assert torch.allclose(absent, average)


def test_draws_are_even_without_repeats_and_leave_out_what_nobody_labeled():
    labels = torch.zeros(10, 10, 10, dtype=torch.int64)
    labels[:3], labels[9] = 1, 255
    chosen = drawn_voxels(labels, count=400, share=0.5, ignored=255, generator=torch.Generator().manual_seed(0))
    assert len(chosen) == len(chosen.unique()) == 400 and torch.equal(chosen, chosen.sort().values)
    assert (labels.flatten()[chosen] == 1).sum() == 200 and not (labels.flatten()[chosen] == 255).any()
    again = drawn_voxels(labels, count=400, share=0.5, ignored=255, generator=torch.Generator().manual_seed(0))
    assert torch.equal(chosen, again)


def test_few_voxels_inside_leave_their_room_to_those_outside():
    labels = torch.zeros(6, 6, 6, dtype=torch.int64)
    labels[0, 0, :3] = 2
    chosen = drawn_voxels(labels, count=50, share=0.5, ignored=255, generator=torch.Generator().manual_seed(0))
    assert (labels.flatten()[chosen] == 2).sum() == 3 and len(chosen) == 50


def test_the_best_threshold_is_that_of_all_scores():
    rng = np.random.default_rng(3)
    inside = rng.random((2, 5000)) < [[0.1], [0.3]]
    scores = rng.normal(0, 2, (2, 5000)) + 2.5 * inside
    true, every = score_histograms(scores, inside, voxel_mm3=27.0)
    assert every.sum() == pytest.approx(2 * 5000 * 27.0) and true.sum() == pytest.approx(inside.sum() * 27.0)
    found = best_thresholds(true, every, missed=np.array([0.0, 54.0]))
    edges = np.linspace(-FURTHEST, FURTHEST, SCORE_BINS + 1)[:-1]
    for s, missed in ((0, 0), (1, 2)):
        dice = [2 * (inside[s] & (scores[s] >= e)).sum() / ((scores[s] >= e).sum() + inside[s].sum() + missed)
                for e in edges]  # fmt: skip
        assert found[s] == edges[int(np.argmax(dice))]


def test_histograms_of_centers_add_to_those_of_all_patients():
    rng = np.random.default_rng(4)
    inside, scores = rng.random((1, 900)) < 0.2, rng.normal(0, 30, (1, 900))  # some beyond the last bins
    whole = score_histograms(scores, inside, 1.0)
    parts = [score_histograms(scores[:, part], inside[:, part], 1.0) for part in (slice(0, 300), slice(300, 900))]
    for place in (0, 1):
        assert np.array_equal(parts[0][place] + parts[1][place], whole[place])


def test_the_logarithm_of_uptake_is_a_column_of_the_pet_alone():
    found = columns(levels=[], log_suv=True)
    assert found.layout.values == ("CT.raw", "PET.raw", "PET.log_suv") and found.layout.flag_of == (0, 1, 1)
    maps, inputs = maps_of(found)
    suv = 25.0 * inputs["PET"].clamp(min=0)
    assert torch.equal(maps[2], torch.log1p(suv)) and len(maps) == 3
