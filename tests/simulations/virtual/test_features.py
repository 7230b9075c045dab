"""Frozen features once: the same bits as a federation that sends messages and decodes every volume."""

from __future__ import annotations

import pytest
import torch

from common.backbones import backbone_digest, load_backbone
from common.config.adapter import Adapter, FusionPart, MlpPart
from common.model.adapted import AdaptedModel
from simulations.comparison.baselines import baseline_order, pooled, train_pooled
from simulations.comparison.patients import open_centers
from simulations.virtual.features import FeatureCenter, feature_table, federated
from tests.helpers.small import federate, small_run

CENTERS = ["CHUM", "CHUP", "MDA"]


@pytest.fixture(scope="module", params=["deephit", "cox"])
def encoded(request, tmp_path_factory, small_centers):
    run = small_run(centers=CENTERS, steps=["relapse"])
    step = run.steps["relapse"]
    step.adapter = Adapter({"image": MlpPart(input="image"), "text": MlpPart(input="text"), "fusion": FusionPart()})
    step.training.augment, step.task.loss = False, request.param
    step.selection.metric = "nll" if request.param == "cox" else "loss"
    backbone = load_backbone(run.backbone)
    base, start = backbone_digest(backbone), AdaptedModel(backbone, step, seed=run.seed).state()
    centers = open_centers(small_centers, CENTERS)
    path = tmp_path_factory.mktemp("features") / "table.safetensors"
    table = feature_table(path, run, step, centers, base=base, state=start)
    again = feature_table(path, run, step, centers, base=base, state=start)
    assert all(torch.equal(again.pooled[s], table.pooled[s]) for s in ("image", "text"))
    order = baseline_order(run, step, base=base, state=start)
    served = [FeatureCenter(center.code, [center], table) for center in centers]
    return run, centers, served, order


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_federation_without_messages_is_the_federation(encoded, tmp_path, small_centers):
    run, _, served, order = encoded
    leader = federate(run, tmp_path, {code: small_centers[code] for code in CENTERS})
    [finished] = leader.ledger.events("step_finished")
    found = federated(served, order)
    assert finished["kept_round"] == found.best_pass
    assert equal(leader.bank.get(finished["key"]), found.state)
    assert not equal(found.state, order.state)


def test_pooled_training_on_features_is_pooled_training_on_volumes(encoded):
    _, centers, served, order = encoded
    volumes = train_pooled(pooled(centers), order)
    together = FeatureCenter("ALL", centers, served[0].table)
    features = train_pooled(together, order)
    assert features.validation == pytest.approx(volumes.validation, abs=1e-6)
    assert all(torch.allclose(features.state[n], volumes.state[n], atol=1e-6) for n in volumes.state)
