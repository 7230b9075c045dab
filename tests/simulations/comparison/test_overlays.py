"""Pictures of test cases: which ones, their Dice in words, and expert and prediction told apart in color and line."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from common.config.step import Step
from common.config.task import SegmentationTask
from common.data.batch import Batch
from simulations.comparison.overlays import EXPERT, PREDICTION, draw
from simulations.comparison.patients import Picture, dice_of, ranked

STRUCTURES = ["GTVp", "GTVn"]


def scored(*values):
    return [(value, "A", f"A-{n}", {"GTVp": value}) for n, value in enumerate(sorted(values))]


def test_the_best_the_median_and_the_worst_case_are_shown_each_once():
    assert [(name, case[0]) for name, case in ranked(scored(0.1, 0.9, 0.5, 0.4))] == [
        ("best", 0.9), ("median", 0.5), ("worst", 0.1),
    ]  # fmt: skip
    assert [(name, case[0]) for name, case in ranked(scored(0.1, 0.9))] == [("best", 0.9), ("worst", 0.1)]
    assert [name for name, _ in ranked(scored(0.4))] == ["best"]
    assert ranked([]) == []


def test_a_structure_that_is_nowhere_has_no_dice():
    step = Step(name="s", task=SegmentationTask())
    volumes = {"intersection": np.array([4.0, 0]), "predicted": np.array([8.0, 0]), "truth": np.array([8.0, 0])}
    assert dice_of(step, volumes) == {"GTVp": 0.5}
    assert dice_of(step, volumes | {"predicted": np.array([8.0, 3.0])}) == {"GTVp": 0.5, "GTVn": 0.0}


def picture(*modalities):
    truth = torch.zeros(24, 24, 24, dtype=torch.uint8)
    truth[8:14, 8:14, 8:14] = 1
    truth[9:13, 16:20, 16:20] = 2
    images = {
        name: torch.randn(1, 1, 24, 24, 24, generator=torch.Generator().manual_seed(0)) / 9 for name in modalities
    }
    batch = Batch(images, {name: torch.ones(1, dtype=torch.bool) for name in modalities}, {})
    return Picture("A", batch, truth, truth.roll(2, dims=2).long(), "worst", {"GTVp": 0.4}, 5, [6.0, 3.0, 3.0])


@pytest.mark.parametrize("modalities", [("CT", "PET"), ("CT",), ("MR",)])
def test_both_masks_are_drawn_in_colors_of_their_own_and_the_picture_is_large(modalities):
    image = Image.open(io.BytesIO(draw(picture(*modalities), STRUCTURES))).convert("RGB")
    assert min(image.size) >= 350 and image.width >= 700
    pixels = np.asarray(image).reshape(-1, 3).astype(int)
    for color in (*EXPERT, *PREDICTION):
        wanted = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
        assert (np.abs(pixels - wanted).max(axis=1) < 12).sum() > 60, color
    assert len({*EXPERT, *PREDICTION}) == 4


def test_a_case_without_any_label_is_drawn_all_the_same():
    blank = picture("CT")
    nothing = replace(blank, truth=torch.zeros_like(blank.truth), prediction=torch.zeros_like(blank.prediction))
    assert draw(nothing, STRUCTURES).startswith(b"\x89PNG")
