"""Deep supervision: coarser levels answer in training, and are weighed as nnU-Net weighs them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from client.training.deep import supervised
from common.adapters.decoder import Decoder, LightDecoder
from common.backbones import load_backbone
from common.backbones.base import Level
from common.config.task import SegmentationTask
from common.data.batch import Batch
from common.model.adapted import AdaptedModel
from common.tasks import build_task
from tests.helpers.small import small_run


def batch_of(side: int = 8) -> Batch:
    mask = torch.zeros(2, 1, side, side, side, dtype=torch.uint8)
    mask[:, :, :4] = 1
    return Batch({}, {}, {"mask": mask})


def test_the_loss_is_the_weighed_mean_and_the_loss_itself_without_levels():
    task, batch = build_task(SegmentationTask(structures=["a"])), batch_of()
    full, half = torch.randn(2, 2, 8, 8, 8), torch.randn(2, 2, 4, 4, 4)
    loss = task.loss(full, batch)
    assert supervised(task, [], batch, loss) is loss
    coarse = task.loss(half, Batch({}, {}, {"mask": batch.target["mask"][:, :, ::2, ::2, ::2]}))
    assert supervised(task, [half], batch, loss).item() == pytest.approx((loss + coarse / 2).item() / 1.5, rel=1e-6)


@pytest.mark.parametrize("style", ["unetr", "light"])
def test_coarser_levels_answer_in_training_only_the_finest_first(style):
    torch.manual_seed(0)
    if style == "unetr":
        module = Decoder(6, (4, 4, 4), features=2, outputs=3, deep_supervision=True)
        pyramid, sides = [torch.randn(1, 6, 2, 2, 2) for _ in range(4)], [4]
    else:
        levels = [Level(6, (1, 1, 1)), Level(6, (2, 2, 2)), Level(6, (4, 4, 4))]
        module = LightDecoder(levels, features=2, outputs=3, deep_supervision=True)
        pyramid, sides = [torch.randn(1, 6, n, n, n) for n in (8, 4, 2)], [8, 4, 2]
    skip = module.skip_from(torch.randn(1, 1, 8, 8, 8))
    module.train()(pyramid, skip)
    assert [tuple(x.shape) for x in module.deeper] == [(1, 3, n, n, n) for n in sides]
    module.eval()(pyramid, skip)
    assert module.deeper == []


def test_a_step_without_it_has_the_tensors_that_it_had():
    run = small_run(steps=["tumour_ct"])
    step = run.steps["tumour_ct"]
    [(name, part)] = [(n, p) for n, p in step.adapter.parts.items() if p.kind == "decoder"]
    plain = AdaptedModel(load_backbone(run.backbone), step, seed=1)
    deep = replace(step, adapter=replace(step.adapter, parts={name: replace(part, deep_supervision=True)}))
    model = AdaptedModel(load_backbone(run.backbone), deep, seed=1)
    more = {n for n in model.state() if n not in plain.state()}
    assert more and all(n.startswith(f"{name}/hints.") for n in more)
    assert all(torch.equal(model.state()[n], tensor) for n, tensor in plain.state().items())
