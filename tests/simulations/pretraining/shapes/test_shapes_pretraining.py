"""Random shapes: maps and renderings from one seed, a contrast with known values, and a stop that changes nothing."""

from __future__ import annotations

import json
import math

import pytest
import torch

from common.errors import ConfigError
from simulations.pretraining.shapes import training
from simulations.pretraining.shapes.contrast import TEMPERATURE, even_sample, same_label
from simulations.pretraining.shapes.labels import label_map
from simulations.pretraining.shapes.rendering import blurred, render
from simulations.pretraining.shapes.training import CARD, STATE, WEIGHTS, Recipe, pretrain_shapes

SMALL = Recipe(batch=2, side=16, warmup_steps=2)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_map_follows_its_seed_and_has_regions():
    maps = [label_map(16, generator(seed)) for seed in range(8)]
    assert torch.equal(maps[3], label_map(16, generator(3)))
    assert all(3 <= int(m.max()) + 1 <= 11 and len(m.unique()) >= 2 for m in maps)


def test_two_renderings_differ_in_contrast_but_not_in_shape():
    drawn = generator(5)
    labels = label_map(24, drawn)
    one, other = render(labels, drawn), render(labels, drawn)
    assert torch.isfinite(one).all() and torch.isfinite(other).all() and not torch.allclose(one, other)
    inside = torch.stack([one[labels == label].var() for label in labels.unique() if (labels == label).sum() > 50])
    assert inside.mean() < one.var()


def test_a_blur_keeps_a_constant_and_a_sum():
    assert torch.allclose(blurred(torch.full((8, 8, 8), 2.5), 1.2), torch.full((8, 8, 8), 2.5))
    point = torch.zeros(17, 17, 17)
    point[8, 8, 8] = 1.0
    assert blurred(point, 1.0).sum() == pytest.approx(1.0, abs=1e-5)


def test_samples_are_even_over_labels():
    labels = torch.tensor([0] * 900 + [1] * 90 + [2] * 10)
    counts = labels[even_sample(labels, 3000, generator(0))].bincount()
    assert all(abs(int(count) - 1000) < 150 for count in counts)


def test_the_contrast_of_one_pair_among_others_is_known():
    """Two orthogonal labels of two vectors each: every positive has share 1 / (1 + 2 exp(-1 / T))."""
    vectors = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    found = same_label(vectors, torch.tensor([0, 0, 1, 1]))
    assert float(found) == pytest.approx(math.log(1 + 2 * math.exp(-1 / TEMPERATURE)), rel=1e-5)


def test_a_label_without_a_partner_has_no_part():
    vectors = torch.eye(3)
    alone = same_label(torch.cat([vectors[:2], vectors[:2]]), torch.tensor([0, 1, 0, 2]))
    assert torch.isfinite(alone)


def test_a_stop_changes_no_weight(tmp_path, monkeypatch):
    whole = pretrain_shapes(tmp_path / "whole", steps=4, seed=3, recipe=SMALL, config="small", progress=str)
    saving = Recipe(batch=2, side=16, warmup_steps=2, save_every_s=0.0)

    def stop(said: str) -> None:
        if "step=2/" in said:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pretrain_shapes(tmp_path / "parts", steps=4, seed=3, recipe=saving, config="small", progress=stop)
    card = pretrain_shapes(tmp_path / "parts", steps=4, seed=3, recipe=saving, config="small", progress=str)
    assert card["digest"] == whole["digest"]
    assert not (tmp_path / "parts" / STATE).exists() and (tmp_path / "parts" / WEIGHTS).exists()
    assert json.loads((tmp_path / "parts" / CARD).read_text()) == card
    assert "no image of any patient" in card["data"]


def test_other_settings_do_not_go_on_with_what_was_begun(tmp_path):
    begun = training._Training(tmp_path, steps=4, seed=3, recipe=SMALL, config="small")
    begun._save()
    with pytest.raises(ConfigError, match="begun with other settings"):
        pretrain_shapes(tmp_path, steps=5, seed=3, recipe=SMALL, config="small", progress=str)
    (tmp_path / STATE).write_bytes(b"cut")
    with pytest.raises(ConfigError, match="damaged"):
        pretrain_shapes(tmp_path, steps=4, seed=3, recipe=SMALL, config="small", progress=str)
