"""Pretraining of the mini CT-CLIP: its parts by hand-computed values, the whole on a handful of fake cases."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from common.backbones import backbone_digest, load_backbone
from common.backbones.ct_clip import MINI, MINI_FOLDER, CtClip, load_checkpoint
from common.backbones.ctvit import Codebook
from common.backbones.text import read_vocabulary
from common.config.run import BackboneSpec
from common.data.findings import FINDINGS
from simulations.pretraining.codebook import MovingCodebook, cosine_kmeans
from simulations.pretraining.pretrain import (
    Recipe,
    _remove_mean,
    auroc,
    balanced,
    contrast,
    generate,
    learn_to_read,
    pretrain,
    same_findings,
    scaled,
)


@dataclass
class FakeCase:
    hu: np.ndarray
    findings: np.ndarray
    report: str


def fake_case(rng: np.random.Generator) -> FakeCase:
    """Noise, with a bright block for the first finding; the report says which findings there are."""
    findings = rng.random(len(FINDINGS)) < 0.4
    hu = rng.normal(-800, 30, (48, 48, 48))
    hu[:16, :16, :16] += 900 * findings[0]
    return FakeCase(hu, findings, " ".join(f"{FINDINGS[i]} is seen." for i in np.flatnonzero(findings)))


# --------------------------------------------------------------------------------------------------------- parts


def test_contrast_with_own_pairs_only_is_clips_loss():
    torch.manual_seed(0)
    logits = torch.randn(5, 5)
    own = torch.arange(5)
    clip = 0.5 * (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own))

    torch.testing.assert_close(contrast(logits, torch.eye(5, dtype=torch.bool)), clip)


def test_contrast_shares_the_target_among_true_pairs():
    matches = torch.tensor([[True, True], [False, True]])  # the second text is true of both images

    loss = contrast(torch.zeros(2, 2), matches)

    assert loss.item() == pytest.approx(math.log(2))
    assert contrast(torch.tensor([[9.0, 9.0], [-9.0, 9.0]]), matches) < loss


def test_reports_of_cases_with_the_same_findings_are_each_others_pairs():
    findings = torch.tensor([[1, 0, 1], [1, 1, 1], [1, 0, 1]], dtype=torch.bool)

    assert same_findings(findings).tolist() == [[True, False, True], [False, True, False], [True, False, True]]


def test_balanced_loss_weighs_rare_positives_like_common_negatives():
    truth = torch.tensor([[True], [False], [False], [False]])
    wrong, right = torch.tensor([[-2.0], [0.0], [0.0], [0.0]]), torch.tensor([[0.0], [2.0], [2.0], [2.0]])
    share = torch.tensor([0.25])

    assert balanced(torch.zeros(4, 1), truth, share).item() == pytest.approx(math.log(2))
    assert balanced(wrong, truth, share).item() == pytest.approx(balanced(right, truth, share).item())


def test_hounsfield_units_are_clipped_and_scaled():
    hu = torch.tensor([-2000, -1000, 0, 500, 3000]).to(torch.int16).reshape(1, 1, 1, 5)

    found = scaled(hu, (-1000.0, 1000.0))

    assert found.shape == (1, 1, 1, 1, 5)
    torch.testing.assert_close(found.flatten(), torch.tensor([-1.0, -1.0, 0.0, 0.5, 1.0]))


def test_cosine_kmeans_finds_directions_whatever_the_length():
    rng = np.random.default_rng(0)
    directions = torch.eye(4)[:3]
    points = directions.repeat_interleave(20, dim=0) * torch.from_numpy(rng.uniform(0.1, 9, (60, 1))).float()

    centers = cosine_kmeans(points, 12, rng=rng)

    torch.testing.assert_close(centers.norm(dim=1), torch.ones(12))
    torch.testing.assert_close((directions @ centers.T).max(dim=1).values, torch.ones(3))


def test_auroc_counts_pairs_with_ties_half():
    scores = torch.tensor([0.9, 0.4, 0.4, 0.1])

    assert auroc(scores, torch.tensor([True, True, False, False])) == 0.875
    assert auroc(scores, torch.ones(4, dtype=torch.bool)) is None


def test_moving_codebook_keeps_unit_rows_and_revives_dead_ones():
    torch.manual_seed(0)
    buffers, tokens = Codebook(6, 16), F.normalize(torch.randn(64, 6), dim=-1)
    moving = MovingCodebook(buffers, tokens, decay=0.5, rng=np.random.default_rng(0))
    for _ in range(6):
        moving.update(tokens, torch.zeros(64, dtype=torch.int64))  # every token chooses row 0

    rows = buffers.embed[0]
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(16))
    assert rows[0] @ F.normalize(tokens.sum(0), dim=0) > 0.95
    torch.testing.assert_close((rows[1:] @ tokens.T).max(dim=1).values, torch.ones(15))


def test_the_mean_direction_is_taken_out_of_a_projection():
    torch.manual_seed(0)
    projection, features = nn.Linear(6, 4, bias=False), torch.randn(50, 6) + 3

    _remove_mean(projection, features)

    assert projection(features).mean(dim=0).abs().max() < 1e-5
    assert projection(features).std(dim=0).min() > 0.1


def test_the_text_side_learns_to_read_prompts():
    train = generate(fake_case, 8, seed=1)
    torch.manual_seed(0)
    model, reader = CtClip(MINI), nn.Linear(MINI.text.hidden, 18 * 3)
    losses: list[str] = []
    recipe = Recipe(batch=8, reading_steps=80, warmup_steps=5)

    learn_to_read(model, reader, train, recipe=recipe, rng=np.random.default_rng(0), progress=losses.append)

    first, last = (float(line.split("loss=")[1]) for line in (losses[0], losses[-1]))
    assert last < 0.9 * first


def test_cases_depend_on_the_seed_alone():
    first, again, other = (generate(fake_case, 2, seed=seed) for seed in (1, 1, 2))

    assert first.hu.dtype == torch.int16
    assert torch.equal(first.hu, again.hu)
    assert first.reports == again.reports
    assert not torch.equal(first.hu, other.hu)


# ------------------------------------------------------------------------------------------------------ the whole


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, dict, list[str]]:
    out, lines = tmp_path_factory.mktemp("mini"), []
    card = pretrain(
        out,
        cases=8,
        epochs=2,
        seed=3,
        make_case=fake_case,
        recipe=Recipe(batch=4, reading_steps=3, continuous_share=0.5),
        progress=lines.append,
    )
    return out, card, lines


def test_pretraining_writes_weights_vocabulary_and_card(trained):
    out, card, lines = trained

    assert sorted(path.name for path in out.iterdir()) == ["card.json", "ct_clip_mini.safetensors", "vocab.txt"]
    assert json.loads((out / "card.json").read_text()) == json.loads(json.dumps(card))
    assert card["held_out"]["seed"] != card["seed"]
    assert list(card["held_out"]["findings"]) == list(FINDINGS)
    assert {"lung", "nodule", "seen", "present", "hpv", "kg"} <= set(read_vocabulary(out / "vocab.txt"))
    phases = [line.split()[1] for line in lines if "phase=" in line]
    assert phases == [*["phase=reading"] * 3, "phase=continuous", "phase=quantized"]


def test_written_weights_load_into_the_frozen_module_with_the_cards_digest(trained):
    out, card, _ = trained
    model = CtClip(MINI)
    load_checkpoint(model, out / "ct_clip_mini.safetensors")
    torch.manual_seed(3)
    start = CtClip(MINI)

    assert backbone_digest(model) == card["digest"]
    assert (out / "ct_clip_mini.safetensors").stat().st_size <= 8_000_000
    for name in ("visual_transformer.to_patch_emb.2.weight", "visual_transformer.vq._codebook.embed"):
        assert not torch.equal(model.state_dict()[name], start.state_dict()[name])
    rows = model.visual_transformer.vq._codebook.embed[0]
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(256))


def test_shipped_weights_are_those_of_the_shipped_card():
    card = json.loads((MINI_FOLDER / "card.json").read_text())

    assert (MINI_FOLDER / "ct_clip_mini.safetensors").stat().st_size <= 8_000_000
    assert backbone_digest(load_backbone(BackboneSpec())) == card["digest"]
    assert list(card["held_out"]["findings"]) == list(FINDINGS)
