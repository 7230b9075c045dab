"""Hashed n-grams: the same everywhere, nearly lossless for a closed vocabulary, and a text side like any other."""

from __future__ import annotations

import re

import pytest
import torch

from client.data.hecktor.reports import report_text
from common.backbones import backbone_digest, load_backbone
from common.backbones.ngrams import BUCKETS, NgramTokenizer
from common.config.run import BackboneSpec
from common.data.batch import CT, EHR
from common.errors import UnknownName


@pytest.fixture(scope="module")
def backbone():
    return load_backbone(BackboneSpec(kind="tiny", text="ngrams"))


def test_words_and_pairs_count_once_and_sentences_keep_apart():
    [a, b] = NgramTokenizer()(["hpv positive . hpv positive .", "hpv . positive ."])
    assert (a > 0).sum() == 3 and (b > 0).sum() == 2 and int(a.max()) < BUCKETS
    assert NgramTokenizer()([]).shape == (0, 0) and NgramTokenizer()([""]).shape == (1, 0)


def test_every_process_draws_the_same_projection(backbone):
    assert backbone_digest(backbone) == backbone_digest(load_backbone(BackboneSpec(kind="tiny", text="ngrams")))
    assert backbone_digest(backbone) != backbone_digest(load_backbone(BackboneSpec(kind="tiny")))


def test_a_linear_head_reads_any_fact_of_a_report(backbone):
    """The mini CT-CLIP's text side does not keep this; a random projection of what occurs does."""
    generator = torch.Generator().manual_seed(0)
    draws = torch.rand(300, 4, generator=generator)
    names = ("hpv", "tobacco", "performance_status")
    records = [
        {"age": 30.0 + round(50 * float(age))} | {n: float(v > 0.5) for n, v in zip(names, facts, strict=True)}
        for age, *facts in draws.tolist()
    ]
    x = backbone.read(backbone.tokenizer([report_text(r) for r in records])).double()
    facts = torch.tensor([[record[n] for n in names] for record in records], dtype=torch.float64)
    weights = torch.linalg.solve(x[:200].T @ x[:200] + torch.eye(x.shape[1]), x[:200].T @ (facts[:200] - 0.5))
    told = (x[200:] @ weights > 0).double()
    assert (told == facts[200:]).double().mean() > 0.9


def test_image_features_stay_and_absent_reports_are_zero(backbone):
    own = load_backbone(BackboneSpec(kind="tiny"))
    volume, here = torch.randn(2, 1, 16, 16, 16), torch.ones(2, dtype=torch.bool)
    ids = backbone.tokenizer(["hpv positive .", "hpv negative ."])
    found = backbone({CT: volume, EHR: ids}, {CT: here, EHR: torch.tensor([True, False])})
    assert torch.equal(found.pooled["image"], own({CT: volume}, {CT: here}).pooled["image"])
    assert found.pooled["text"].shape == (2, backbone.text_dim) and found.pooled["text"][0].std() > 0.5
    assert not found.pooled["text"][1].any() and len(found.pyramid) == 4
    assert torch.equal(backbone.zero_shot({CT: volume}, ["Emphysema"]), own.zero_shot({CT: volume}, ["Emphysema"]))


def test_only_image_sites_may_be_adapted(backbone):
    assert set(backbone.sites) == {"image_attention", "image_mlp"} == set(backbone.blocks)
    names = dict(backbone.named_modules())
    found = [name for name in names if re.fullmatch(backbone.sites["image_mlp"], name)]
    assert found == [f"image.image_blocks.{i}.mlp" for i in range(4)]


def test_an_unknown_text_side_is_refused():
    with pytest.raises(UnknownName, match=r"Unknown text side 'bert'. Known: ngrams, own"):
        load_backbone(BackboneSpec(kind="tiny", text="bert"))
