"""Every continual method keeps the same promises: at weight 0 it is plain training bit for bit, above it is not, and
nothing beside the update leaves."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from client.center.center import Center
from client.methods.teacher import TeacherProblem
from common.backbones import backbone_digest, load_backbone
from common.config.methods import CONTINUAL, TAUGHT
from common.config.methods.continual import FeaturesMethod, LwfMethod, MedcossMethod, RehearsalMethod, SequentialMethod
from common.model.adapted import AdaptedModel
from common.protocol.declaration import TEACHER
from common.protocol.messages import Order
from server.learning.strategy import teacher_of
from tests.helpers.small import forget, small_run

IDENTITY = {  # kind -> options at which it equals sequential bit for bit, and options at which it must not
    "features": (FeaturesMethod(strength=0.0), FeaturesMethod(strength=50.0)),
    "lwf": (LwfMethod(strength=0.0), LwfMethod(strength=50.0)),
    "medcoss": (MedcossMethod(), None),  # above nothing in self-supervised stages only: client/methods/stages
    "rehearsal": (RehearsalMethod(at=[]), RehearsalMethod(at=["CHUM"], cases=1)),
    "sequential": (SequentialMethod(), None),
}
STEPS = ["relapse", "tumour_ctpet"]
DATA = ["CHUM", "CHUP"]


@pytest.fixture(scope="module", params=STEPS)
def order(request):
    """The second round of a step with LoRA inside the encoder, away from its start."""
    run = small_run(steps=[request.param])
    step, backbone = run.steps[request.param], load_backbone(run.backbone)
    start = AdaptedModel(backbone, step, seed=1).state()
    generator = torch.Generator().manual_seed(5)
    moved = {
        name: tensor + 0.05 * torch.randn(tensor.shape, generator=generator) if tensor.is_floating_point() else tensor
        for name, tensor in start.items()
    }
    made = Order(step, 1, 2, run.backbone, backbone_digest(backbone), run.data.split, state=moved)
    return made, start


def trained(center, order, start, *methods):
    """What a center sends back in a step that lists these methods."""
    step = replace(order.step, methods=list(methods))
    own = replace(order, step=step, run="a" * 8 + str(len(methods)))
    extra = teacher_of(replace(own, state=start), seeded=())
    forget()
    return center.train(replace(own, extra=extra))


def bits(reply):
    return {name: tensor.numpy().tobytes() for name, tensor in reply.state.items()}


@pytest.fixture
def center(small_centers):
    forget()
    return Center.open(small_centers["CHUM"])


def test_every_continual_method_has_a_row():
    assert set(IDENTITY) == CONTINUAL


@pytest.mark.parametrize("kind", IDENTITY)
def test_at_its_identity_a_method_is_plain_training_bit_for_bit_and_above_it_is_not(kind, center, order):
    made, start = order
    nothing, much = IDENTITY[kind]
    plain = trained(center, made, start)
    same = trained(center, made, start, nothing)
    assert bits(same) == bits(plain) and same.extra == {} and same.counts == plain.counts
    assert float(same.sums["fit.loss"]) == float(plain.sums["fit.loss"])
    if much is not None:
        assert bits(trained(center, made, start, much)) != bits(plain)


def test_a_strong_teacher_keeps_the_answer_nearer_to_its_own(center, order):
    made, start = order
    model, _ = center.model(replace(made, state=start))
    [batch] = [center.case_set(made, "train", model).collate([0])]

    def answer(state):
        model.load(state)
        with torch.no_grad():
            return model(batch.inputs, batch.present)

    before, ends = answer(start), {}
    for name, methods in {"plain": [], "lwf": [LwfMethod(strength=100.0)]}.items():
        long = replace(made, step=replace(made.step, training=replace(made.step.training, epochs=4)))
        reply = trained(center, long, start, *methods)
        ends[name] = float((answer({**made.state, **reply.state}) - before).norm())
    assert ends["lwf"] < ends["plain"]


@pytest.mark.parametrize("kind", sorted(TAUGHT))
def test_without_its_teacher_nothing_is_trained(kind, center, order):
    made, _ = order
    step = replace(made.step, methods=[IDENTITY[kind][1] or MedcossMethod(stages=["EHR"])])
    with pytest.raises(TeacherProblem, match="the order brings no such model"):
        center.train(replace(made, step=step, run="c" * 9))


def test_a_teacher_that_changes_within_a_step_is_refused(center, order):
    made, start = order
    own = replace(made, step=replace(made.step, methods=[LwfMethod()]), run="b" * 9)
    extra = teacher_of(replace(own, state=start), seeded=())
    center.train(replace(own, extra=extra))
    another = {name: tensor + 1 if tensor.is_floating_point() else tensor for name, tensor in extra.items()}
    with pytest.raises(TeacherProblem, match="within a step it never changes"):
        center.train(replace(own, extra=another))
    center.train(replace(own, extra=extra))


def test_the_teacher_is_the_start_without_what_the_seed_makes(order):
    made, start = order
    own = replace(made, step=replace(made.step, methods=[LwfMethod()]), state=start)
    skipped = sorted(start)[:2]
    sent = teacher_of(own, seeded=skipped)
    assert sent.keys() == {TEACHER + name for name in start} - {TEACHER + name for name in skipped}
    assert teacher_of(made, seeded=()) == {}
