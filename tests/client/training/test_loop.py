"""The training loop: what it may change, what it counts, and that it depends on nothing but its arguments."""

from dataclasses import replace

import pytest
import torch

from client.training.job import prepare
from client.training.loop import fit
from common.backbones import backbone_digest, load_backbone
from common.config.run import BackboneSpec, Split
from common.config.step import Step
from common.config.training import Training
from common.data.batch import Batch
from common.model.adapted import AdaptedModel
from common.protocol.messages import Order
from common.tasks import build_task
from tests.helpers.small import small_run


def batch(size=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.zeros(size, 1, 16, 16, 16, dtype=torch.uint8)
    mask[:, :, 4:8, 4:8, 4:8] = 1
    return Batch(
        {"CT": torch.rand(size, 1, 16, 16, 16, generator=generator)},
        {"CT": torch.ones(size, dtype=torch.bool)},
        {"mask": mask},
    )


@pytest.fixture
def tools():
    run = small_run(steps=["tumour_ct"])
    model = AdaptedModel(load_backbone(run.backbone), run.steps["tumour_ct"], seed=1)
    return model, build_task(run.steps["tumour_ct"].task)


def trained(tools, *batches, optimizer=None, **training):
    model, task = tools
    step = Step(name="s", training=Training(**training))
    order = Order(step, 1, 1, BackboneSpec(), "base", Split())
    job = prepare(order, model, task, None, code="CHUM", optimizer=optimizer)
    return fit(replace(job, batches=[(batch, None) for batch in batches]))


def test_the_adapter_moves_and_the_backbone_does_not(tools):
    model, _ = tools
    before, base = model.state(), backbone_digest(model.backbone)
    trained(tools, batch(), learning_rate=0.01)
    assert backbone_digest(model.backbone) == base
    assert all(not torch.equal(before[n], t) for n, t in model.state().items() if n.endswith("weight"))
    assert not model.training


def test_the_log_holds_sums_over_cases(tools):
    model, task = tools
    with torch.no_grad():
        expected = [float(task.loss(model(b.inputs, b.present), b)) for b in (batch(3), batch(1, seed=1))]
    log = trained(tools, batch(3), batch(1, seed=1), learning_rate=1e-30, weight_decay=0.0)
    assert (log.batches, log.cases) == (2, 4)
    assert log.loss == pytest.approx(3 * expected[0] + expected[1], rel=1e-5)


def test_loss_falls(tools):
    losses = [trained(tools, batch(), learning_rate=0.01).loss for _ in range(8)]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("clip", [0.0, 1e-3])
def test_the_gradient_is_clipped_if_asked(tools, clip):
    model, _ = tools
    optimizer = torch.optim.SGD(model.trainable_parameters(), lr=1.0)
    before = torch.cat([p.detach().flatten().clone() for p in model.trainable_parameters()])
    trained(tools, batch(), optimizer=optimizer, clip_norm=clip)
    moved = float((torch.cat([p.detach().flatten() for p in model.trainable_parameters()]) - before).norm())
    assert moved == pytest.approx(clip, rel=1e-3) if clip else moved > 1e-2


def test_no_batches_change_nothing(tools):
    before = tools[0].state()
    log = trained(tools)
    assert (log.loss, log.batches, log.cases) == (0.0, 0, 0)
    assert all(torch.equal(before[name], tensor) for name, tensor in tools[0].state().items())
