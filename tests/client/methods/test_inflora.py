"""What is not a step's own stays to the bit, through momentum, weight decay and clipping."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from client.methods.brought import KeepsakeProblem
from client.methods.inflora import InfLora
from common.config.adapter import Adapter, LoraPart
from common.config.methods.continual import InfLoraMethod
from common.protocol.keepsakes import USED
from common.protocol.messages import Order

READS, WRITES = "within/q.lora_A.weight", "within/q.lora_B.weight"


def begun(rank, used, *, resting=()):
    """A step's method with a LoRA part of four rows on one linear layer and on a convolution."""
    state = {READS: torch.ones(4, 6), WRITES: torch.ones(5, 4)}
    state |= {n.replace("/q", "/c"): t[..., None, None] for n, t in state.items()}
    step = SimpleNamespace(name="s", adapter=Adapter({"within": LoraPart(rank=4, rule="ffa")}))
    order = Order(step, 1, 1, None, "", None, state=state, extra={f"inflora/{USED}": torch.tensor(used)})
    vault = SimpleNamespace(note=lambda name, text: text)
    method = InfLora(InfLoraMethod(rank=rank), vault)
    method.begin(
        SimpleNamespace(order=order, model=SimpleNamespace(device="cpu", trained_parts={"within"} - {*resting}))
    )
    return method


@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 1, 1)])
def test_only_a_steps_own_columns_move_though_all_have_a_gradient_and_decay(shape):
    name = WRITES if len(shape) == 2 else WRITES.replace("/q", "/c")
    method, parameter = begun(1, used=2), nn.Parameter(torch.ones(shape))
    optimizer = torch.optim.AdamW([parameter], lr=0.1, weight_decay=0.5)
    for _ in range(5):
        parameter.grad = torch.ones(shape)
        method.gradient({name: parameter})
        assert parameter.grad.sum() == 5, "what rests takes no share of a norm that is clipped"
        before = {name: parameter.detach().clone()}
        optimizer.step()
        with torch.no_grad():
            method.step({name: parameter}, before)
    rows = parameter.detach().transpose(0, 1).flatten(1)
    assert [bool((row == 1).all()) for row in rows] == [True, True, False, True]
    assert bool((rows[2] < 0.6).all())


def test_where_no_rows_are_asked_or_no_part_trains_no_step_is_watched():
    assert not begun(0, used=0).changes_steps
    assert not begun(1, used=0, resting=["within"]).changes_steps


def test_an_order_that_does_not_say_which_rows_are_used_trains_nothing():
    method = InfLora(InfLoraMethod(), SimpleNamespace(note=lambda name, text: text))
    order = Order(SimpleNamespace(name="s"), 1, 1, None, "", None, state={}, extra={})
    with pytest.raises(KeepsakeProblem, match="lists inflora, and the order says nothing"):
        method.begin(SimpleNamespace(order=order))
