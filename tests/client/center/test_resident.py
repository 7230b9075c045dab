"""What a process keeps between messages is bounded by its bytes, and what was used last stays."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from client.center import resident
from client.center.config import read_config
from client.center.models import initial_state, resident_model
from common.backbones import backbone_digest, load_backbone
from common.config.load import to_json
from common.protocol.messages import Order
from tests.helpers.small import small_run


@pytest.fixture
def orders():
    run = small_run()
    base = backbone_digest(load_backbone(run.backbone))
    return [Order(step, 1, 1, run.backbone, base, run.data.split) for step in run.steps.values()]


@pytest.fixture
def config(small_centers, monkeypatch):
    monkeypatch.setattr(resident, "MODELS", {})
    monkeypatch.setattr("client.center.models.MODELS", resident.MODELS)
    monkeypatch.setattr(resident, "FROZEN", {})
    return read_config(small_centers["CHUM"])


def use(config, order):
    return resident_model(config, replace(order, state=initial_state(config, order)))


def test_models_of_several_steps_stay_while_there_is_room(config, orders):
    first, second = (use(config, order) for order in orders)
    assert use(config, orders[0]) is first and use(config, orders[1]) is second
    taken = sum(found.nbytes for found in resident.MODELS.values())
    own = sum(t.numel() * t.element_size() for order in orders for t in initial_state(config, order).values())
    assert 2 * own < taken < 4 * own, "what a step adds, its gradients and its start, and not the frozen model again"


def test_a_model_that_does_not_fit_beside_the_others_replaces_the_one_not_used_for_longest(config, orders, monkeypatch):
    first, second = (use(config, order) for order in orders)
    use(config, orders[0])
    other = replace(orders[1], seed=2)
    room = sum(found.nbytes for found in resident.MODELS.values())
    monkeypatch.setattr(resident, "machine_bytes", lambda: room / resident.OF_MODELS)
    use(config, other)
    assert use(config, orders[0]) is first and use(config, orders[1]) is not second


def test_one_that_is_too_large_for_the_bound_stands_alone(config, orders, monkeypatch):
    use(config, orders[0])
    monkeypatch.setattr(resident, "machine_bytes", lambda: 1)
    last = use(config, orders[1])
    assert [found.model for found in resident.MODELS.values()] == [last]


def test_with_a_frozen_model_its_steps_models_go(config, orders, monkeypatch):
    use(config, orders[0])
    monkeypatch.setattr(resident, "machine_bytes", lambda: 1)
    other = replace(orders[0].backbone, random_seed=5)
    backbone, _ = resident.frozen_model(to_json(other), "cpu")
    assert not resident.MODELS and [found.backbone for found in resident.FROZEN.values()] == [backbone]


def test_a_kept_model_answers_with_the_same_bits(config, orders):
    fresh = {name: t.clone() for name, t in use(config, orders[0]).state().items()}
    use(config, orders[1])
    again = use(config, orders[0]).state()
    assert fresh.keys() == again.keys() and all(torch.equal(fresh[name], again[name]) for name in fresh)
