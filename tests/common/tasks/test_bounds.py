"""No patients make impossible sums, and no honest sums are called impossible."""

import numpy as np
import pytest
import torch

from common.config.task import ClassificationTask, GroundingTask, PrognosisTask, SegmentationTask
from common.data.batch import Batch
from common.tasks import build_task
from common.tasks.bounds import AtMost, impossible

SPECS = {
    "segmentation": SegmentationTask(structures=["GTVp", "GTVn"]),
    "grounding": GroundingTask(),
    "multi_label": ClassificationTask(classes=["a", "b", "c"]),
    "multi_class": ClassificationTask(classes=["a", "b", "c"], form="multi_class"),
    "ordinal": ClassificationTask(classes=["a", "b", "c"], form="ordinal"),
    **{loss: PrognosisTask(loss=loss, bins=6, horizon_days=600.0) for loss in ("deephit", "mtlr", "hazard", "cox")},
}


def made(name, seed, cases=7):
    """A task, its honest sums over random cases and the label sums of the same."""
    draw, task = torch.Generator().manual_seed(seed), build_task(SPECS[name])

    def whole(low, high, *shape):
        return torch.randint(low, high, shape, generator=draw)

    if task.kind == "segmentation":
        output = torch.randn(cases, 3, 4, 4, 4, generator=draw)
        target = {"mask": whole(0, 3, cases, 1, 4, 4, 4), "voxel_mm3": torch.rand(cases, generator=draw) + 0.1}
    elif task.kind == "grounding":
        output = torch.randn(cases, 4 + 6, 2, 2, 2, generator=draw)
        low = whole(0, 8, cases, 16, 3)
        boxes = torch.cat([whole(-1, 2, cases, 16, 1), low, low + whole(1, 8, cases, 16, 3)], dim=2).float()
        target = {"boxes": boxes, "known": torch.ones(cases, 2), "size": torch.full((cases, 3), 16.0)}
        target["slice"] = torch.full((cases,), -1)
    elif task.kind == "classification":
        output = torch.randn(cases, task.outputs, generator=draw)
        target = {"labels": whole(-1, 3, cases, 1) if task.exclusive else whole(-1, 2, cases, 3)}
    else:
        output = torch.randn(cases, task.outputs, generator=draw)
        target = {"days": torch.rand(cases, generator=draw).double() * 800, "event": whole(0, 2, cases).double()}
    observed = task.observe(output, Batch({}, {}, target))
    return task, task.sums(observed) | task.curve_sums(observed, 0.4), task.label_sums(target)


def verdict(task, sums, cases):
    return impossible(sums, bounds=task.bounds, signed=task.signed, cases=cases)


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("seed", range(8))
def test_honest_sums_pass(name, seed):
    task, sums, labels = made(name, seed)
    assert verdict(task, sums, 7) == "" and verdict(task, labels, 7) == ""


@pytest.mark.parametrize("name", SPECS)
def test_every_bound_stands_on_sums_that_the_task_declares(name):
    task, sums, labels = made(name, 0)
    known = set(task.sum_shapes) | set(task.curve_shapes) | set(task.label_shapes)
    assert set(sums) <= known and set(labels) <= known and task.signed <= known
    for loss_free in task.bounds:
        assert isinstance(loss_free, AtMost)


LIES = [
    ("segmentation", "intersection", 1e9, "2 x (intersection) is more than volumes"),
    ("segmentation", "dice_sum", 50.0, "dice_sum is more than dice_cases"),
    ("segmentation", "cases", 5000.0, "cases is more than the 7 that there are"),
    ("deephit", "concordant", 1e6, "concordant + tied is more than comparable"),
    ("deephit", "comparable", 1e6, "2 x (comparable) is more than cases ** 2"),
    ("deephit", "events", 8.0, "events is more than cases"),
    ("deephit", "km_events", 9.0, "km_events is more than km_at_risk"),
    ("cox", "breslow_events", 9.0, "breslow_events is more than events"),
    ("multi_class", "positives", 3.0, "positives + negatives is more than cases"),
    ("grounding", "found", 50.0, "0.333333 x (found + wrong) is more than cases"),
    ("grounding", "truths", 500.0, "0.0625 x (truths) is more than cases"),
    ("multi_label", "confusion", 8.0, "confusion is more than cases"),
    ("mtlr", "spread_cc", 1e5, "spread_cc is more than spread_cn"),
]


@pytest.mark.parametrize(("name", "sum_", "value", "said"), LIES)
def test_a_lie_is_named(name, sum_, value, said):
    task, sums, _ = made(name, 1)
    assert verdict(task, sums | {sum_: np.full_like(sums[sum_], value)}, 7) == said


@pytest.mark.parametrize("name", SPECS)
def test_negative_and_astronomic_sums_are_named(name):
    task, sums, labels = made(name, 2)
    for honest in (sums, labels):
        for sum_ in honest:
            huge = verdict(task, honest | {sum_: np.full_like(honest[sum_], 1.7e308)}, 7)
            negative = verdict(task, honest | {sum_: np.full_like(honest[sum_], -1e6)}, 7)
            assert huge.endswith("is beyond 1e+15")
            assert (negative == f"{sum_} is negative") == (sum_ not in task.signed)
