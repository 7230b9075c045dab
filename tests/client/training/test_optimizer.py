"""The learning rate of a round, and an optimizer that has it."""

import pytest
import torch

from client.training.optimizer import learning_rate, optimizer_for
from common.backbones import load_backbone
from common.config.step import Step
from common.config.training import Training
from common.model.adapted import AdaptedModel
from tests.helpers.small import small_run


def test_an_annealed_learning_rate_is_pytorchs_cosine_with_a_step_a_round():
    step = Step(rounds=7, training=Training(learning_rate=3e-3, anneal=True))
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=3e-3)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=7)
    for number in range(1, 8):
        assert learning_rate(step, number) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
        optimizer.step()
        cosine.step()


def test_the_rounds_optimizer_has_the_annealed_rate():
    run = small_run(steps=["tumour_ct"])
    model = AdaptedModel(load_backbone(run.backbone), run.steps["tumour_ct"], seed=1)
    step = Step(rounds=4, training=Training(learning_rate=1e-2, anneal=True))
    rates = [optimizer_for(model, step, number).param_groups[0]["lr"] for number in range(1, 5)]
    assert rates[0] == 1e-2 and rates == sorted(rates, reverse=True) and rates[2] == pytest.approx(5e-3)
    step.training.anneal = False
    assert {optimizer_for(model, step, number).param_groups[0]["lr"] for number in range(1, 5)} == {1e-2}
