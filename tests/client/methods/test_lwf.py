"""LwF's distance against hand-computed values, for every distribution that a task answers with."""

import pytest
import torch

from client.methods.features import distance as feature_distance
from client.methods.lwf import distance
from common.adapters.grounding import NO_WORD
from common.backbones.base import Features
from common.config.task import ClassificationTask, GroundingTask, PrognosisTask, SegmentationTask

OLD = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.5, 1.0]])
NEW = torch.tensor([[1.0, 0.5, -0.5], [0.0, 1.0, 1.0]])
STAGES = ClassificationTask(form="multi_class", target="t_stage", classes=["T1", "T2", "T3"])
TASKS = {
    "multi_class": STAGES,
    "ordinal": ClassificationTask(form="ordinal", target="t_stage", classes=["T1", "T2", "T3", "T4"]),
    "binary": ClassificationTask(form="binary", target="hpv", classes=["hpv"]),
    "segmentation": SegmentationTask(),
    **{loss: PrognosisTask(loss=loss) for loss in ("cox", "deephit", "hazard", "mtlr")},
}


def test_the_golden_value_of_the_softened_divergence_with_its_square():
    assert distance(STAGES, OLD, NEW, temperature=2.0).item() == pytest.approx(0.174858, abs=1e-6)


@pytest.mark.parametrize("task", TASKS.values(), ids=list(TASKS))
def test_a_teacher_that_is_the_student_teaches_nothing_to_the_bit(task):
    now = OLD.clone().requires_grad_()
    loss = distance(task, OLD, now, temperature=2.0)
    loss.backward()
    assert loss.item() == 0.0 and now.grad.abs().max() < 1e-7
    assert distance(task, OLD, NEW, temperature=2.0) > 0


def test_words_are_compared_as_distributions_and_sides_of_boxes_by_half_their_squared_difference():
    old, new = torch.zeros(1, 8, 1, 1, 1), torch.zeros(1, 8, 1, 1, 1)
    old[:, 1] = new[:, 1] = NO_WORD
    task = GroundingTask(structures=["a", "b"])
    assert distance(task, old, new, temperature=2.0).item() == 0.0
    new[:, 2:] = 2.0
    assert distance(task, old, new, temperature=2.0).item() == pytest.approx(2.0)
    new[:, 0] = 1.0
    p, q = torch.tensor(0.5), torch.sigmoid(torch.tensor(0.5))
    by_hand = 4 * (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log())
    assert distance(task, old, new, temperature=2.0).item() == pytest.approx(2.0 + by_hand.item(), rel=1e-5)


def test_every_voxel_counts_alike():
    volume = torch.stack([OLD, NEW], dim=2)[..., None, None]  # (2, 3, 2, 1, 1)
    other = torch.stack([NEW, NEW], dim=2)[..., None, None]
    expected = distance(STAGES, OLD, NEW, temperature=1.0) / 2
    assert distance(TASKS["segmentation"], volume, other, temperature=1.0).item() == pytest.approx(expected.item())


def test_hazards_are_compared_one_by_one():
    old, new = torch.tensor([[0.0]]), torch.tensor([[1.0]])
    p, q = 0.5, torch.sigmoid(torch.tensor(1.0)).item()
    by_hand = p * torch.log(torch.tensor(p / q)) + (1 - p) * torch.log(torch.tensor((1 - p) / (1 - q)))
    assert distance(TASKS["hazard"], old, new, temperature=1.0).item() == pytest.approx(by_hand.item(), rel=1e-5)


def test_a_log_hazard_is_compared_by_half_its_squared_difference():
    assert distance(TASKS["cox"], OLD[:, :1], NEW[:, :1], temperature=5.0).item() == pytest.approx((1 + 0.25) / 4)


def test_features_are_compared_level_by_level():
    before = Features([torch.zeros(2, 3, 4, 4, 4), torch.zeros(2, 8)], {"image": torch.zeros(2, 5)})
    now = Features([torch.ones(2, 3, 4, 4, 4), torch.zeros(2, 8)], {"image": torch.full((2, 5), 2.0)})
    assert feature_distance(before, now).item() == pytest.approx((1 + 0 + 4) / 3)
    assert feature_distance(now, now).item() == 0.0
