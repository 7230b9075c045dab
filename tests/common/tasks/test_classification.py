"""Classification: unknown labels teach nothing, and histograms of centers add up to one AUROC."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from common.batch import Batch
from common.config.schema import ClassificationTask
from common.errors import UnknownName
from common.tasks import build_task, merge_sums


@pytest.fixture
def task():
    return build_task(ClassificationTask(classes=["Emphysema", "Lung nodule"]))


def batch_of(labels):
    return Batch({}, {}, {"labels": torch.tensor(labels, dtype=torch.float32)})


def test_loss_is_the_mean_over_known_labels(task):
    logits = torch.tensor([[0.3, -1.0], [2.0, 0.5]], requires_grad=True)
    value = task.loss(logits, batch_of([[1, -1], [0, 1]]))
    known = F.binary_cross_entropy_with_logits(logits.detach()[[0, 1, 1], [0, 0, 1]], torch.tensor([1.0, 0, 1]))
    assert value.item() == pytest.approx(known.item(), abs=1e-6)
    value.backward()
    assert logits.grad[0, 1] == 0


def test_without_a_known_label_the_loss_is_zero_with_a_gradient(task):
    logits = torch.randn(2, 2, requires_grad=True)
    value = task.loss(logits, batch_of([[-1, -1], [-1, -1]]))
    value.backward()
    assert value.item() == 0 and logits.grad.abs().sum() == 0


def test_auroc_per_class_and_merged(task):
    scores = torch.tensor([[2.0, 0.1], [1.0, 0.2], [-1.0, 0.3], [-2.0, 0.4]])
    observations = task.observe(scores, batch_of([[1, 1], [0, 1], [1, 1], [0, -1]]))
    sums = merge_sums([task.sums(observations[:2]), task.sums(observations[2:])])
    assert task.metrics(sums) == {"auroc": 0.75, "auroc_Emphysema": 0.75, "auroc_Lung nodule": None}
    assert {name: np.shape(value) for name, value in sums.items()} == task.sum_shapes
    assert sums["positives"].sum() == 5 and sums["negatives"].sum() == 2 and sums["cases"] == 4


def test_no_cases_make_zero_sums(task):
    sums = task.sums([])
    assert {name: np.shape(value) for name, value in sums.items()} == task.sum_shapes
    assert set(task.metrics(sums).values()) == {None}


def test_zero_shot_has_no_head(task):
    assert task.head(8)(torch.zeros(1, 8)).shape == (1, 2)
    assert build_task(ClassificationTask(classes=["x"], zero_shot=True)).head(8) is None


def test_an_unknown_task_is_refused_with_the_options():
    with pytest.raises(UnknownName, match=r"Unknown task 'None'. Known: classification, prognosis, segmentation"):
        build_task(None)
