"""A message that is answered from a warm parent has the bits of one that loaded for itself; nothing is loaded again."""

import multiprocessing
from dataclasses import replace

import pytest
import torch

from client.center import warmth
from client.center.center import Center
from client.center.resident import CASE_SETS, FROZEN, MODELS
from client.center.warmth import keep, lasting, order_of, remember, wanted
from common.backbones import backbone_digest, load_backbone
from common.backbones.base import tensors_digest
from common.model.adapted import AdaptedModel
from common.protocol.messages import Order
from common.runtime.warm import WarmContext, start_warm, threads
from tests.helpers.small import forget, small_run, write_centers, write_cohort

FORK = multiprocessing.get_context("fork")


@pytest.fixture
def center(tmp_path):
    return write_centers(tmp_path / "c", write_cohort(tmp_path / "data", {"CHUM": 6}), ["CHUM"])["CHUM"]


@pytest.fixture
def order():
    run = small_run(steps=["tumour_ct"], centers=["CHUM"])
    step = run.steps["tumour_ct"]
    backbone = load_backbone(run.backbone)
    state = AdaptedModel(backbone, step, seed=1).state()
    made = Order(step, 1, 1, run.backbone, backbone_digest(backbone), run.data.split, state=state, run="ab" * 32)
    yield made
    torch.use_deterministic_algorithms(False)


@pytest.fixture(autouse=True)
def nothing_kept():
    def forget_all():
        forget()
        FROZEN.clear()
        MODELS.clear()
        warmth.LATEST.clear()

    forget_all()
    yield
    forget_all()


def train(center, order):
    reply = Center.open(center).train(order)
    return tensors_digest(reply.state), dict(reply.counts)


def answer(connection, center, order):
    before = (set(FROZEN), set(MODELS), set(CASE_SETS), threads())
    found = train(center, order)
    connection.send((found, before, (set(FROZEN), set(MODELS), set(CASE_SETS))))


def test_a_fork_of_a_warm_parent_loads_nothing_and_trains_to_the_same_bits(center, order):
    here = train(center, order)
    remember(center, order)
    hint = wanted(seconds=60.0, most_bytes=10 << 40)
    assert hint is not None and len(hint.sets) == 1 and str(center) in hint.files
    forget()
    FROZEN.clear()
    MODELS.clear()
    parent = start_warm(FORK, keep, hint)
    try:
        assert parent.problem(wait_s=60) == "", "one thread, also after the model was built and the cases were read"
        ours, theirs = FORK.Pipe()
        process = WarmContext(parent.place).Process(target=answer, args=(theirs, center, order))
        process.start()
        theirs.close()
        there, before, after = ours.recv()
        process.join()
    finally:
        parent.end()
    assert there == here
    assert before[3] == 1 and before[:3] == after, "everything that it needed was there"
    assert all(len(held) == 1 for held in after)


def test_of_an_order_only_what_lasts_a_step_is_kept(order):
    text = lasting(order)
    for other in (replace(order, round=7), replace(order, subset="test", id="ab" * 32), replace(order, state={})):
        assert lasting(other) == text
    assert lasting(replace(order, seed=2)) != text and lasting(replace(order, base="ab" * 32)) != text
    again = order_of(text)
    assert lasting(again) == text and not again.state and again.step == order.step


def test_what_is_remembered_holds_no_tensors(center, order):
    remember(center, replace(order, extra=order.state, known={"count": torch.ones(1)}))
    [kept] = warmth.LATEST.values()
    assert not kept.state and not kept.extra and not kept.known


def test_a_center_that_answered_nothing_wants_nothing():
    assert wanted(seconds=1.0, most_bytes=1) is None


def test_a_gpu_gets_a_frozen_model_in_main_memory_and_no_model(center, order):
    center.write_text(center.read_text().replace("device: cpu", "device: cuda"))
    keep(replace(_hint(center, order), sets=()))
    assert [key[1] for key in FROZEN] == ["cpu"] and not MODELS


def _hint(center, order):
    remember(center, order)
    found = wanted(seconds=60.0, most_bytes=10 << 40)
    assert found is not None
    return found
