"""The step of the optimizer, not its gradient, is orthogonal to what earlier patients showed a layer."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from client.center.center import Center
from client.methods.projection import Projection, linear_layers, second_moments, shared
from client.training.keepsakes import Kept
from common.backbones import backbone_digest, load_backbone
from common.model.adapted import AdaptedModel
from common.model.directions import off_directions
from common.protocol.keepsakes import BASIS, MOMENT, keepsake_shapes, trained_in_step
from common.protocol.messages import Order
from tests.helpers.small import forget, small_run

NAME = "within/q.lora_A.weight"


def basis(width=16, k=5, seed=1):
    found, _ = torch.linalg.qr(torch.randn(width, k, generator=torch.Generator().manual_seed(seed)).double())
    return found


def test_a_way_is_made_orthogonal_to_1e_6_and_what_is_free_stays():
    held = basis()
    start, there = (torch.randn(4, 16, generator=torch.Generator().manual_seed(s)) for s in (2, 3))
    found = off_directions(there, start=start, basis=held)
    way = (found - start).double()
    assert (way @ held).abs().max() < 1e-6
    free = (there - start).double() - (there - start).double() @ held @ held.T
    assert (way - free).abs().max() < 1e-6


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_adamw_leaves_the_subspace_of_a_projected_gradient_and_a_projected_step_does_not(weight_decay):
    held, target = basis(), torch.randn(4, 16, generator=torch.Generator().manual_seed(4))
    ends = {}
    for what in ("gradient", "step"):
        parameter = nn.Parameter(torch.randn(4, 16, generator=torch.Generator().manual_seed(5)))
        start = parameter.detach().clone()
        method = Projection(None)
        method._basis, method._start, method.changes_steps = {NAME: held}, {NAME: start}, True
        optimizer = torch.optim.AdamW([parameter], lr=0.05, weight_decay=weight_decay)
        for _ in range(20):
            parameter.grad = (parameter.detach() - target) * torch.arange(1, 17)
            if what == "gradient":
                parameter.grad -= (parameter.grad.double() @ held @ held.T).float()
            before = {NAME: parameter.detach().clone()}
            optimizer.step()
            if what == "step":
                with torch.no_grad():
                    method.step({NAME: parameter}, before)
        ends[what] = float(((parameter.detach() - start).double() @ held).abs().max())
        assert (parameter.detach() - start).abs().max() > 0.1
    assert ends["step"] < 1e-6 < 1e-3 < ends["gradient"]


def test_without_directions_no_step_is_watched():
    method = Projection(SimpleNamespace(note=lambda name, text: text))
    brought = {"projection/tasks": torch.tensor(0), f"projection/{BASIS}{NAME}": torch.zeros(16, 16)}
    order = Order(SimpleNamespace(name="s"), 1, 1, None, "", None, state={NAME: torch.zeros(4, 16)}, extra=brought)
    method.begin(SimpleNamespace(order=order, model=SimpleNamespace(device="cpu")))
    assert not method.changes_steps


@pytest.fixture(scope="module")
def kept(small_centers):
    """A step with LoRA inside the encoder at one center, its factors away from zero."""
    forget()
    run = small_run(steps=["relapse"])
    step, backbone = run.steps["relapse"], load_backbone(run.backbone)
    state = AdaptedModel(backbone, step, seed=1).state()
    generator = torch.Generator().manual_seed(2)
    state = {n: t + 0.1 * torch.randn(t.shape, generator=generator) for n, t in state.items()}
    order = Order(step, 1, 1, run.backbone, backbone_digest(backbone), run.data.split, state=state)
    center = Center.open(small_centers["CHUM"])
    model, task = center.model(order)
    model.train_in_round(None)
    return Kept(order, "CHUM", model.eval(), task, center.case_set(order, "train", model))


def test_every_linear_weight_that_trains_is_covered_both_factors_of_a_lora_too(kept):
    names = {n.removeprefix(MOMENT) for n in keepsake_shapes_of(kept)}
    layers = linear_layers(kept.model, names)
    assert any(n.endswith("lora_A.weight") for n in layers) and any(n.endswith("lora_B.weight") for n in layers)
    assert "head/weight" in layers and layers.keys() <= names


def keepsake_shapes_of(kept):
    from dataclasses import replace

    from common.config.methods.continual import ProjectionMethod

    step = replace(kept.order.step, methods=[ProjectionMethod()])
    return {n: s for n, s in keepsake_shapes(kept.order.state, step).items() if n.startswith(MOMENT)}


def test_second_moments_are_those_of_what_a_layer_sees(kept):
    names = {n.removeprefix(MOMENT) for n in keepsake_shapes_of(kept)}
    layers = linear_layers(kept.model, names)
    sums = second_moments(kept, layers)
    assert {n: v.shape for n, v in sums.items()}.items() <= keepsake_shapes_of(kept).items()
    seen = []
    hook = layers["head/weight"].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    with torch.no_grad():
        for batch, _ in kept.one_by_one():
            kept.model(batch.inputs, batch.present)
    hook.remove()
    rows = torch.cat(seen).double()
    assert torch.allclose(torch.from_numpy(sums[f"{MOMENT}head/weight"]), rows.T @ rows, atol=1e-8)
    assert not any(layer._forward_pre_hooks for layer in layers.values())


def test_inputs_that_a_few_patients_have_or_lack_are_in_no_moment():
    """Eleven patients, inputs one, a flag of three, one of eight, one of six, and one that six others have."""
    x = torch.zeros(11, 5, dtype=torch.float64)
    x[:, 0], x[:3, 1], x[:8, 2], x[:6, 3], x[5:, 4] = 1.0, 7.0, 7.0, 7.0, 7.0
    moments = torch.stack([row[:, None] * row for row in x])
    seen = Kept(None, "CHUM", None, None, list(range(11)), minimum=5)
    told = shared(seen, moments.sum(0), (moments != 0).sum(0))
    expected = torch.zeros(5, 5, dtype=torch.float64)
    expected[0, 0], expected[3, 3], expected[4, 4] = 11.0, 6 * 49.0, 6 * 49.0
    expected[0, 3] = expected[3, 0] = expected[0, 4] = expected[4, 0] = 6 * 7.0
    assert torch.equal(told, expected), "of the last two one patient has both"
    open_to_all = Kept(None, "CHUM", None, None, list(range(11)))
    assert torch.equal(shared(open_to_all, moments.sum(0), (moments != 0).sum(0)), moments.sum(0))


def test_a_model_moved_off_all_inputs_answers_the_earlier_patients_as_before(kept):
    """Both factors of each LoRA pair, the head and what lies between, each off everything that it saw."""
    names = {n.removeprefix(MOMENT) for n in keepsake_shapes_of(kept)}
    sums = second_moments(kept, linear_layers(kept.model, names))
    before, free, held = answers(kept), dict(kept.order.state), dict(kept.order.state)
    generator = torch.Generator().manual_seed(8)
    for name in (n for n in trained_in_step(free, kept.order.step) if MOMENT + n in sums):
        values, vectors = torch.linalg.eigh(torch.from_numpy(sums[MOMENT + name]))
        free[name] = free[name] + 0.1 * torch.randn(free[name].shape, generator=generator)
        basis = vectors[:, values > 1e-13 * values.max()]
        held[name] = off_directions(free[name], start=held[name], basis=basis)
    moved = {}
    for what, state in {"held": held, "free": free}.items():
        kept.model.load(state)
        moved[what] = float((answers(kept) - before).abs().max())
    kept.model.load(kept.order.state)
    assert sum(not torch.equal(held[n], kept.order.state[n]) for n in held) > 4
    assert moved["held"] < 1e-4 < 1e-2 < moved["free"]


def answers(kept):
    with torch.no_grad():
        return torch.cat([kept.model(batch.inputs, batch.present) for batch, _ in kept.one_by_one()])
