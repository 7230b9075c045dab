"""Every continual method keeps the same promises: at weight 0 it is plain training bit for bit, above it is not, and
nothing beside the update leaves."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from client.center.center import Center
from client.methods.brought import KeepsakeProblem
from client.methods.olora import overlap
from client.methods.teacher import TeacherProblem
from common.backbones import backbone_digest, load_backbone
from common.config.adapter import Adapter, LoraPart
from common.config.methods import CONTINUAL, KEEPING, TAUGHT
from common.config.methods.continual import (
    DerppMethod,
    EwcMethod,
    FeaturesMethod,
    FewShotMethod,
    InfLoraMethod,
    LwfMethod,
    MedcossMethod,
    MedseqftMethod,
    MibMethod,
    OLoraMethod,
    OnlineEwcMethod,
    ProjectionMethod,
    RehearsalMethod,
    SequentialMethod,
)
from common.config.task import GroundingTask
from common.model.adapted import AdaptedModel
from common.protocol.keepsakes import MOMENT, TEACHER, keepsake_shapes
from common.protocol.messages import Order
from server.methods import brought, ends_of
from server.methods.base import Begun, Ended
from tests.helpers.small import forget, small_run

BESIDE = {"few_shot", "medseqft"}  # which go on with no lineage: from the seed, and from a base
IDENTITY = {  # kind -> options at which it equals sequential bit for bit, and options at which it must not
    "derpp": (DerppMethod(at=[]), DerppMethod(at=["CHUM"], cases=1)),
    "ewc": (EwcMethod(strength=0.0), EwcMethod(strength=50.0)),
    "features": (FeaturesMethod(strength=0.0), FeaturesMethod(strength=50.0)),
    "few_shot": (FewShotMethod(cases=100), FewShotMethod(cases=1)),
    "inflora": (InfLoraMethod(rank=0), None),  # it needs a LoRA part whose factor A rests, see below
    "lwf": (LwfMethod(strength=0.0), LwfMethod(strength=50.0)),
    "medcoss": (MedcossMethod(), None),  # above nothing in self-supervised stages only: client/methods/stages
    "medseqft": (MedseqftMethod(strength=0.0), MedseqftMethod(strength=50.0)),
    "mib": (MibMethod(strength=0.0), None),  # it needs structures that somebody does not outline, see below
    "olora": (OLoraMethod(strength=0.0), None),  # it needs a second LoRA part, see below
    "online_ewc": (OnlineEwcMethod(strength=0.0), OnlineEwcMethod(strength=50.0)),
    "projection": (ProjectionMethod(energy=0.0), ProjectionMethod(energy=0.5)),
    "rehearsal": (RehearsalMethod(at=[]), RehearsalMethod(at=["CHUM"], cases=1)),
    "sequential": (SequentialMethod(), None),
}


def at_work(kind):
    """The options at which a method is not plain training, its identity's where it needs other parts for that."""
    nothing, much = IDENTITY[kind]
    return much or nothing


STEPS = ["relapse", "tumour_ctpet", "grounding"]
DATA = ["CHUM", "CHUP"]


@pytest.fixture(scope="module", params=STEPS)
def order(request):
    """The second round of a step with LoRA inside the encoder, away from its start."""
    run = small_run(steps=["tumour_ctpet" if request.param == "grounding" else request.param])
    [step], backbone = run.steps.values(), load_backbone(run.backbone)
    if request.param == "grounding":
        lora = LoraPart(sites=["image_attention", "text_attention"], rank=2, dropout=0.0)
        step = replace(
            step, name="grounding", task=GroundingTask(), modalities=["CT"], adapter=Adapter({"within": lora})
        )
    start = AdaptedModel(backbone, step, seed=1).state()
    generator = torch.Generator().manual_seed(5)
    moved = {
        name: tensor + 0.05 * torch.randn(tensor.shape, generator=generator) if tensor.is_floating_point() else tensor
        for name, tensor in start.items()
    }
    made = Order(step, 1, 2, run.backbone, backbone_digest(backbone), run.data.split, state=moved)
    return made, start


def kept_at(step, state):
    """What an earlier step, which ended at a state, would have left for a step's methods: of twelve patients."""
    shapes = keepsake_shapes(state, step)
    told = {
        name: 12.0 * (np.eye(*shape) if name.startswith(MOMENT) else np.ones(shape)) for name, shape in shapes.items()
    }
    return {
        kind: end.keeps(Ended(step, state, "base", told), {}) for kind, end in ends_of(step).items() if kind in KEEPING
    }


def trained(center, order, start, *methods):
    """What a center sends back in a step that lists these methods."""
    step = replace(order.step, methods=list(methods))
    own = replace(order, step=step, run=hashlib.sha256(repr(methods).encode()).hexdigest()[:16])
    extra = brought(Begun(step, start, "base"), kept_at(step, start))
    forget()
    return center.train(replace(own, extra=extra))


def bits(reply):
    return {name: tensor.numpy().tobytes() for name, tensor in reply.state.items()}


@pytest.fixture
def center(small_centers):
    forget()
    return Center.open(small_centers["CHUM"])


def test_every_continual_method_has_a_row():
    assert set(IDENTITY) == CONTINUAL | BESIDE


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


@pytest.mark.parametrize("order", ["tumour_ctpet"], indirect=True)
def test_what_a_center_does_not_outline_is_taught_and_nothing_where_it_outlines_all(center, order):
    made, start = order
    ends = {}
    for names in ([], ["GTVp"], ["GTVp", "GTVn"]):
        task = replace(made.step.task, outlined={"CHUM": names} if names else {})
        own = replace(made, step=replace(made.step, task=task))
        ends[len(names)] = [
            bits(trained(center, own, start, m)) for m in (SequentialMethod(), MibMethod(strength=50.0))
        ]
    assert ends[0][0] == ends[0][1] and ends[2][0] == ends[2][1] and ends[1][0] != ends[1][1]
    assert ends[1][0] != ends[0][0]  # a node that nobody outlined is no background


@pytest.mark.parametrize("kind", sorted(TAUGHT))
def test_without_its_teacher_nothing_is_trained(kind, center, order):
    made, _ = order
    step = replace(made.step, methods=[IDENTITY[kind][1] or MedcossMethod(stages=["EHR"])])
    with pytest.raises(TeacherProblem, match="the order brings no such model"):
        center.train(replace(made, step=step, run="c" * 9))


def test_a_teacher_that_changes_within_a_step_is_refused(center, order):
    made, start = order
    own = replace(made, step=replace(made.step, methods=[LwfMethod()]), run="b" * 9)
    extra = brought(Begun(own.step, start, "base"), {})
    center.train(replace(own, extra=extra))
    another = {name: tensor + 1 if tensor.is_floating_point() else tensor for name, tensor in extra.items()}
    with pytest.raises(TeacherProblem, match="within a step it never changes"):
        center.train(replace(own, extra=another))
    center.train(replace(own, extra=extra))


def test_the_teacher_is_the_start_without_what_the_seed_makes(order):
    made, start = order
    step = replace(made.step, methods=[LwfMethod()])
    skipped = sorted(start)[:2]
    sent = brought(Begun(step, start, "base", frozenset(skipped)), {})
    assert sent.keys() == {TEACHER + name for name in start} - {TEACHER + name for name in skipped}
    assert brought(Begun(made.step, start, "base"), {}) == {}


@pytest.mark.parametrize("kind", sorted(KEEPING))
def test_where_no_step_was_before_a_method_that_keeps_is_plain_training(kind, center, order):
    made, start = order
    step = replace(made.step, methods=[at_work(kind)])
    first = center.train(replace(made, step=step, run="d" * 9, extra=brought(Begun(step, start, "base"), {})))
    assert bits(first) == bits(trained(center, made, start))


@pytest.mark.parametrize("kind", sorted(KEEPING))
def test_without_what_earlier_steps_kept_nothing_is_trained(kind, center, order):
    made, _ = order
    step = replace(made.step, methods=[at_work(kind)])
    with pytest.raises(KeepsakeProblem, match=f"lists {kind}, and the order says nothing"):
        center.train(replace(made, step=step, run="e" * 9))


@pytest.mark.parametrize("kind", sorted(KEEPING))
def test_what_earlier_steps_kept_does_not_change_within_a_step(kind, center, order):
    made, start = order
    own = replace(made, step=replace(made.step, methods=[at_work(kind)]), run="f" * 9)
    extra = brought(Begun(own.step, start, "base"), kept_at(own.step, start))
    center.train(replace(own, extra=extra))
    with pytest.raises(KeepsakeProblem, match="it never changes"):
        center.train(replace(own, extra={name: tensor + 1 for name, tensor in extra.items()}))


@pytest.mark.parametrize("order", ["relapse"], indirect=True)
def test_a_step_trains_the_columns_that_are_its_own_and_the_others_rest_bit_for_bit(center, order):
    made, _ = order
    within = replace(made.step.adapter.parts["within"], rule="ffa")
    step = replace(made.step, adapter=Adapter({**made.step.adapter.parts, "within": within}))
    own = replace(made, step=step)
    ends = {rank: trained(center, own, own.state, InfLoraMethod(rank=rank)).state for rank in (0, 1)}
    factors = [name for name in ends[1] if name.endswith("lora_B.weight")]
    assert factors and not any(name.endswith("lora_A.weight") for name in ends[1])
    before = kept_at(replace(step, methods=[InfLoraMethod(rank=1)]), own.state)["inflora"]["used"]
    for name in factors:
        moved = [not torch.equal(ends[1][name][:, k], own.state[name][:, k]) for k in range(ends[1][name].shape[1])]
        assert moved == [k == before for k in range(len(moved))]
        assert not torch.equal(ends[0][name][:, 0], own.state[name][:, 0])


@pytest.mark.parametrize("order", ["relapse"], indirect=True)
def test_new_low_rank_updates_overlap_less_with_those_that_rest(center, order):
    """Round 2 trains the factors A; the part of the step before rests beside the new one and stays as it is."""
    made, _ = order
    parts = {**made.step.adapter.parts, "second": made.step.adapter.parts["within"]}
    training = [*(name for name in parts if name != "within"), "head"]
    step = replace(made.step, adapter=Adapter(parts), train_parts=training)
    start = {n.replace("within/", "second/"): t.flip(0) for n, t in made.state.items() if n.startswith("within/")}
    own = replace(made, step=step, state={**made.state, **start})
    ends = {}
    for strength in (0.0, 200.0):
        reply = trained(center, own, own.state, OLoraMethod(strength=strength))
        assert not any(name.startswith("within/") for name in reply.state)
        after = {**own.state, **reply.state}
        pairs = {
            n: n.replace("second/", "within/") for n in after if n.startswith("second/") and n.endswith("lora_A.weight")
        }
        ends[strength] = overlap(after, {n: [own.state[old]] for n, old in pairs.items()}, form="squared")
    assert pairs and ends[200.0] < ends[0.0]
    assert bits(trained(center, own, own.state)) == bits(trained(center, own, own.state, OLoraMethod(strength=0.0)))


def test_with_alpha_0_what_rehearses_by_the_old_answers_is_rehearsal_bit_for_bit(center, order):
    made, start = order
    with_, without, plain = (
        trained(center, made, start, method)
        for method in (
            DerppMethod(at=["CHUM"], cases=2, alpha=5.0),
            DerppMethod(at=["CHUM"], cases=2, alpha=0.0),
            RehearsalMethod(at=["CHUM"], cases=2),
        )
    )
    assert bits(without) == bits(plain) != bits(with_)
    assert with_.counts == plain.counts


def test_a_center_that_does_not_rehearse_is_not_taught(center, order):
    made, start = order
    elsewhere = trained(center, made, start, DerppMethod(at=["CHUP"], alpha=5.0))
    assert bits(elsewhere) == bits(trained(center, made, start))


def test_every_method_has_a_preset_and_a_row_that_says_what_it_stores():
    root = Path(__file__).resolve().parents[2]
    rows = {}
    for line in (root / "docs/researcher/continual-methods.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        rows |= dict.fromkeys(cells[0].replace("`", "").split(", "), cells[1:]) if len(cells) == 4 else {}
    for kind in [*CONTINUAL, "merge"]:
        assert (root / f"configs/method/{kind}.yaml").exists(), kind
        does, stores, equals = rows[kind]
        assert does and stores and equals


@pytest.mark.parametrize("order", ["tumour_ctpet"], indirect=True)
def test_few_shot_by_fraction_is_rounded_up_and_all_is_plain_training_bit_for_bit(center, order):
    made, start = order
    whole = trained(center, made, start)
    all_, half = (trained(center, made, start, FewShotMethod(fraction=fraction)) for fraction in (1.0, 0.1))
    assert bits(all_) == bits(whole) and half.counts["cases"] == 1 < whole.counts["cases"]
