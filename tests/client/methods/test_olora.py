"""O-LoRA's overlap against golden values; trained with it, it is smaller than without."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from client.methods.olora import OLora, overlap
from common.config.adapter import Adapter, LoraPart
from common.protocol.messages import Order

OLD, NEW = "within/q.lora_A.weight", "second/q.lora_A.weight"
FIRST = torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0]])
SECOND = torch.tensor([[0.6, 0, 0.8, 0], [0, 0.5, 0, 0.5]])


@pytest.mark.parametrize(("form", "golden"), [("absolute", 1.1), ("squared", 0.61)])
def test_the_golden_overlap(form, golden):
    assert overlap({NEW: SECOND}, {NEW: [FIRST]}, form=form).item() == pytest.approx(golden, abs=1e-6)


def test_factors_of_convolutions_are_matrices():
    old, new = FIRST.view(2, 1, 2, 2, 1), SECOND.view(2, 1, 2, 2, 1)
    assert overlap({NEW: new}, {NEW: [old]}, form="squared").item() == pytest.approx(0.61, abs=1e-6)


def begun(strength, form="squared", *, trained=("second",)):
    parts = {"within": LoraPart(rank=2), "second": LoraPart(rank=2)}
    step = SimpleNamespace(adapter=Adapter(parts), name="s")
    order = Order(step, 1, 1, None, "", None, state={OLD: FIRST, NEW: SECOND, "within/k.lora_A.weight": FIRST})
    method = OLora(strength, form)
    method.begin(SimpleNamespace(order=order, model=SimpleNamespace(trained_parts={*trained}, device="cpu")))
    return method


def model_of(**named):
    return SimpleNamespace(named_trainable_parameters=lambda: named)


def test_it_is_held_against_every_part_that_rests_on_its_layer_and_no_other():
    assert list(begun(1.0)._resting) == [NEW]
    value = begun(0.5, "absolute").penalty(model_of(**{NEW: nn.Parameter(SECOND)}))
    assert value.item() == pytest.approx(0.55, abs=1e-6)


def test_where_nothing_rests_or_nothing_is_asked_there_is_no_penalty():
    named = {NEW: nn.Parameter(SECOND)}
    assert begun(0.0).penalty(model_of(**named)) is None
    assert begun(1.0, trained=("within", "second")).penalty(model_of(**named)) is None
    assert begun(1.0).penalty(model_of(head=nn.Parameter(SECOND))) is None


@pytest.mark.parametrize("form", ["squared", "absolute"])
def test_trained_with_it_the_overlap_is_smaller_than_without(form):
    ends = {}
    for strength in (0.0, 1.0):
        parameter, target = nn.Parameter(SECOND.clone()), torch.tensor([[1.0, 1, 1, 1], [1, 1, 1, 1]])
        optimizer, method = torch.optim.AdamW([parameter], lr=0.02), begun(strength, form)
        for _ in range(100):
            optimizer.zero_grad()
            loss = (parameter - target).square().sum() / 10
            penalty = method.penalty(model_of(**{NEW: parameter}))
            (loss if penalty is None else loss + penalty).backward()
            optimizer.step()
        ends[strength] = overlap({NEW: parameter.detach()}, {NEW: [FIRST]}, form=form).item()
    assert ends[1.0] < ends[0.0] / 2
