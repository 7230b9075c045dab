"""Masked modelling as a task: its loss is a mean over sources of means over cases, and its sums add up."""

import numpy as np
import pytest
import torch

from common.config.task import MaskedTask
from common.tasks import build_task, merge_sums, question_of

# Two cases, two sources; the second case lacks the second source.
OUTPUT = torch.tensor([[[1.0, 0.5, 1.0], [3.0, 0.1, 1.0]], [[2.0, 0.0, 1.0], [0.0, 0.0, 0.0]]])


@pytest.fixture
def task():
    return build_task(MaskedTask(sources=["EHR", "CT:slices"]))


def test_the_loss_is_a_mean_over_sources_of_means_over_the_cases_that_have_them(task):
    assert task.loss(OUTPUT, None).item() == pytest.approx((1.5 + 3.0) / 2)


def test_nothing_shown_is_no_loss_and_a_gradient(task):
    output = torch.zeros(2, 2, 3, requires_grad=True)
    loss = task.loss(output, None)
    loss.backward()
    assert loss.item() == 0.0 and output.grad.isfinite().all()


def test_sums_merge_and_divide_once(task):
    records = task.observe(OUTPUT, None)
    whole, parts = task.sums(records), merge_sums([task.sums(records[:1]), task.sums(records[1:])])
    assert {name: value.tolist() for name, value in whole.items()} == {
        "loss_sum": [3.0, 3.0], "restored_sum": [0.5, pytest.approx(0.1)], "shown_cases": [2.0, 1.0], "cases": 2.0,
    }  # fmt: skip
    assert all(np.array_equal(whole[name], parts[name]) for name in whole)
    assert {name: value.shape for name, value in task.sums([]).items()} == task.sum_shapes
    assert task.metrics(whole) == {
        "restored": pytest.approx((0.25 + 0.1) / 2),
        "restored_EHR_report": 0.25,
        "restored_CT_slices": pytest.approx(0.1),
    }
    assert task.metrics(task.sums([]))["restored"] is None


def test_the_same_sources_are_one_question():
    one, two = (MaskedTask(sources=sources) for sources in (["CT", "EHR"], ["EHR", "CT:volume"]))
    assert question_of(one) == question_of(two) != question_of(MaskedTask(sources=["CT:slices"]))
