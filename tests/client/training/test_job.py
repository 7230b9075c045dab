"""A job: the same batches whenever it is prepared, randomness of its own, and the loop of a center when it is run."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from client.center.center import Center
from client.methods.base import Method
from client.methods.drift.proximal import Proximal
from client.training.job import prepare
from client.training.loop import fit
from common.backbones import backbone_digest, load_backbone
from common.model.adapted import AdaptedModel
from common.protocol.messages import Order
from tests.helpers.small import forget, small_run

ROUND = 3


@pytest.fixture(scope="module")
def order():
    """LoRA with dropout, augmented: everything that is random in a round."""
    run = small_run(steps=["relapse"])
    step, backbone = run.steps["relapse"], load_backbone(run.backbone)
    step.training.epochs = 2
    assert step.training.augment and step.adapter.parts["within"].dropout > 0
    state = AdaptedModel(backbone, step, seed=1).state()
    return Order(step, 1, ROUND, run.backbone, backbone_digest(backbone), run.data.split, state=state)


@pytest.fixture
def center(small_centers):
    forget()
    return Center.open(small_centers["CHUM"])


def job_of(center, order, **options):
    model, task = center.model(order)
    model.train_in_round(order.round)
    return prepare(order, model, task, center.case_set(order, "train", model), code=center.code, **options)


def bits(state):
    return {name: tensor.numpy().tobytes() for name, tensor in state.items()}


def batches(job):
    return [(batch.inputs["CT"], batch.target["days"]) for batch, _ in job.batches]


def test_prepared_twice_it_has_the_same_batches_and_every_pass_over_them_is_the_same(center, order):
    first, second = job_of(center, order), job_of(center, order)
    passes = [batches(first), batches(first), batches(second)]
    assert len(passes[0]) == 2  # two cases a batch, twice
    for other in passes[1:]:
        assert all(
            torch.equal(a, b) for one, two in zip(passes[0], other, strict=True) for a, b in zip(one, two, strict=True)
        )
    epochs = passes[0]
    assert not torch.equal(epochs[0][0], epochs[1][0]), "an epoch is augmented anew"


def test_who_trained_before_makes_no_difference(center, order):
    alone = job_of(center, order)
    fit(alone)
    after = job_of(center, order)
    fit(job_of(center, order))  # another job in between, and a process that used every global generator
    torch.rand(7), np.random.rand(7), random.random()
    fit(after)
    assert bits(after.model.state()) == bits(alone.model.state()) != bits(order.state)


def test_the_seed_is_of_run_step_center_and_round_alone(center, order):
    job = job_of(center, order)
    others = [replace(order, seed=2), replace(order, round=4), replace(order, step=replace(order.step, name="other"))]
    seeds = {job_of(center, other).seed for other in others}
    assert len(seeds | {job.seed}) == 4
    assert job_of(center, replace(order, base=order.base, minimum_cell=3)).seed == job.seed


def test_a_center_trains_by_preparing_fitting_and_settling(center, order):
    job = job_of(center, order)
    done = fit(job)
    reply = center.train(order)
    trained = {n: t for n, t in job.model.state().items() if n in reply.state}
    assert bits(reply.state) == bits(trained) and float(reply.sums["fit.loss"]) == done.loss
    assert reply.counts == {"cases": len(job.cases), "batches": done.batches, "skipped": 0}


class Watching(Method):
    """Counts what the loop calls, and sees which parameters it is given."""

    changes_steps = True

    def __init__(self):
        self.called = []

    def begin(self, job):
        self.called.append("begin")

    def batches(self, stream):
        self.called.append("batches")
        return stream

    def loss(self, answer):
        self.called.append("loss")
        assert answer.output.requires_grad and len(answer.output) == len(answer.batch)

    def penalty(self, model):
        self.called.append("penalty")

    def gradient(self, named):
        self.called.append("gradient")
        assert named and all(parameter.grad is not None for parameter in named.values())

    def step(self, named, before):
        self.called.append("step")
        assert named.keys() == before.keys() and any(not torch.equal(p, before[n]) for n, p in named.items())

    def end(self, job, leaving):
        self.called.append("end")
        return {}


def test_methods_begin_once_see_every_batch_in_their_order_and_end_once(center, order):
    watching = Watching()
    job = job_of(center, order, methods=[watching, Proximal(0.5)])
    done = fit(job)
    center.settle(job, done)
    each = ["loss", "penalty", "gradient", "step"]
    assert watching.called == ["begin", "batches", *each * done.batches, "end"] and done.batches == 2


def test_a_method_that_only_watches_changes_no_bit_and_a_pull_does(center, order):
    ends = []
    for methods in ([], [Watching()], [Proximal(5.0)]):
        job = job_of(center, order, methods=methods)
        fit(job)
        ends.append(bits(job.model.state()))
    assert ends[0] == ends[1] != ends[2]


class Pulling(Method):
    """A third of each way that a method's loss can go: as loss, as penalty, as gradient."""

    def __init__(self, how):
        self.how = how

    def begin(self, job):
        self.start = job.order.state

    def _half_square(self, model):
        named = model.named_trainable_parameters()
        return sum(((p - self.start[n]) ** 2).sum() / 2 for n, p in named.items())

    def loss(self, answer):
        return self._half_square(answer.model) if self.how == "loss" else None

    def penalty(self, model):
        return self._half_square(model) if self.how == "penalty" else None


def test_a_pull_is_the_same_as_loss_as_penalty_and_as_gradient(center, order):
    ends = {}
    for how, method in {"loss": Pulling("loss"), "penalty": Pulling("penalty"), "gradient": Proximal(1.0)}.items():
        job = job_of(center, order, methods=[method])
        done = fit(job)
        ends[how] = (job.model.state(), done.loss)
    for state, loss in ends.values():
        assert loss == pytest.approx(ends["gradient"][1], rel=1e-5), "the log holds the task's own loss"
        assert all(torch.allclose(t, ends["gradient"][0][n], atol=1e-6) for n, t in state.items())


class Undoing(Method):
    """Takes every step back."""

    changes_steps = True

    def step(self, named, before):
        for name, parameter in named.items():
            parameter.copy_(before[name])


def test_a_method_has_the_last_word_on_a_step(center, order):
    job = job_of(center, order, methods=[Undoing()])
    fit(job)
    assert bits(job.model.state()) == bits(order.state)


class Twice(Method):
    """Each batch twice."""

    def batches(self, stream):
        return (item for item in stream for _ in range(2))


def test_a_method_can_put_batches_between_others(center, order):
    done = fit(job_of(center, order, methods=[Twice(), Twice()]))
    assert done.batches == 8
