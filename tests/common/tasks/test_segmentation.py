"""Segmentation: HECKTOR's scores from volumes that centers can add."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from common.config.task import SegmentationTask
from common.data.batch import Batch
from common.tasks import build_task, merge_sums
from common.tasks.segmentation import LOSSES

GOLDEN = Path(__file__).parents[3].parent / "shared" / "golden" / "misc.json"


@pytest.fixture
def task():
    return build_task(SegmentationTask())


def maps(rows):
    return torch.tensor(rows).reshape(-1, 2, 2, 2)


def logits_of(labels):
    return 9.0 * F.one_hot(labels.long(), 3).movedim(-1, 1).float()


def batch_of(labels, **more):
    return Batch({}, {}, {"mask": labels.to(torch.uint8).unsqueeze(1), **more})


@pytest.fixture(scope="module")
def golden():
    if not GOLDEN.is_file():
        pytest.skip(f"golden values are not at {GOLDEN}")
    return json.loads(GOLDEN.read_text())


def test_aggregated_and_per_case_dice_match_the_golden_values(task, golden):
    inputs = golden["inputs"]["dscagg"]
    truth, predicted = maps(inputs["gt"]), maps(inputs["pred"])
    observations = task.observe(logits_of(predicted), batch_of(truth))
    metrics = task.metrics(task.sums(observations))
    assert metrics["dsc_agg_GTVp"] == pytest.approx(golden["dscagg"]["1"], abs=1e-12)
    assert metrics["dsc_agg_GTVn"] == pytest.approx(golden["dscagg"]["2"], abs=1e-12)
    assert metrics["dsc_agg"] == pytest.approx(golden["dscagg"]["mean"], abs=1e-12)
    for structure, name in enumerate(("GTVp", "GTVn"), start=1):
        each = [task.metrics(task.sums([one]))[f"dice_{name}"] for one in observations]
        assert each == pytest.approx(golden["per_case_dice"][str(structure)], abs=1e-12)
        assert metrics[f"dice_{name}"] == pytest.approx(np.mean(each), abs=1e-12)


def test_sums_of_centers_merge_exactly(task, golden):
    inputs = golden["inputs"]["dscagg"]
    observations = task.observe(logits_of(maps(inputs["pred"])), batch_of(maps(inputs["gt"])))
    apart = merge_sums([task.sums(observations[:1]), task.sums(observations[1:])])
    together = task.sums(observations)
    assert all(apart[name] == pytest.approx(together[name], abs=1e-12) for name in together)
    assert {name: np.shape(value) for name, value in together.items()} == task.sum_shapes


def test_volumes_are_in_mm3_and_what_the_crop_cut_off_counts_as_missed(task):
    truth = maps([[1, 1, 0, 0, 0, 0, 0, 0]])
    batch = batch_of(truth, voxel_mm3=torch.tensor([27.0]), outside_mm3=torch.tensor([[54.0, 10.0]]))
    [one] = task.observe(logits_of(truth), batch)
    assert one["truth"].tolist() == [108, 10]
    assert one["predicted"].tolist() == one["intersection"].tolist() == [54, 0]
    assert task.metrics(task.sums([one]))["dsc_agg_GTVp"] == pytest.approx(2 * 54 / (54 + 108))


def test_one_structure_ignores_the_second_outside_volume():
    task = build_task(SegmentationTask(structures=["GTV"]))
    truth = maps([[1, 0, 0, 0, 0, 0, 0, 0]])
    [one] = task.observe(logits_of(truth)[:, :2], batch_of(truth, outside_mm3=torch.tensor([[1.0, 7.0]])))
    assert one["truth"].tolist() == [2]


def test_an_absent_structure_is_skipped_unless_it_is_predicted(task):
    truth, nothing, false = maps([[1] + [0] * 7]), maps([[1] + [0] * 7]), maps([[1, 2, 2] + [0] * 5])
    quiet = task.sums(task.observe(logits_of(nothing), batch_of(truth)))
    assert quiet["dice_cases"].tolist() == [1, 0]
    assert task.metrics(quiet) == {
        "dsc_agg": 1.0, "dice": 1.0, "dsc_agg_GTVp": 1.0, "dsc_agg_GTVn": None, "dice_GTVp": 1.0, "dice_GTVn": None,
    }  # fmt: skip
    loud = task.sums(task.observe(logits_of(false), batch_of(truth)))
    assert loud["false_positive_mm3"].tolist() == [0, 2]
    assert task.metrics(loud)["dice_GTVn"] == 0.0


def test_loss_falls_towards_the_truth_and_is_finite_without_foreground(task):
    truth = maps([[0, 1, 1, 2, 2, 0, 0, 0]])
    right = task.loss(logits_of(truth), batch_of(truth))
    wrong = task.loss(logits_of(truth.flip(-1)), batch_of(truth))
    assert right < wrong
    output = torch.zeros(1, 3, 2, 2, 2, requires_grad=True)
    empty = task.loss(output, batch_of(torch.zeros(1, 2, 2, 2)))
    empty.backward()
    assert torch.isfinite(empty) and torch.isfinite(output.grad).all()


def test_no_cases_make_zero_sums_and_no_value(task):
    sums = task.sums([])
    assert {name: np.shape(value) for name, value in sums.items()} == task.sum_shapes
    assert set(task.metrics(sums).values()) == {None}


def test_voxels_that_nobody_drew_are_neither_trained_nor_scored(task):
    labels = maps([[1, 1, 0, 0, 2, 0, 0, 0]])
    output = torch.randn(1, 3, 2, 2, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()
    ignored = labels.clone()
    ignored.view(-1)[[1, 4]] = 255
    task.loss(output, batch_of(ignored)).backward()
    gradient = output.grad.flatten(2)
    assert (gradient[..., [1, 4]] == 0).all() and (gradient[..., [0, 2, 3]] != 0).any()
    [observed] = task.observe(logits_of(labels), batch_of(ignored))
    assert observed["truth"].tolist() == [1, 0] and observed["predicted"].tolist() == [1, 0]


def test_a_structure_within_another_counts_as_both():
    task = build_task(SegmentationTask(structures=["whole", "core"], within={"whole": ["core"]}))
    truth, predicted = maps([[1, 1, 2, 2, 0, 0, 0, 0]]), maps([[1, 1, 1, 2, 0, 0, 0, 0]])
    metrics = task.metrics(task.sums(task.observe(logits_of(predicted), batch_of(truth))))
    assert metrics["dsc_agg_whole"] == 1.0 and metrics["dsc_agg_core"] == pytest.approx(2 / 3)


def test_losses_of_the_field_by_option():
    labels, logits = (
        maps([1, 0, 0, 2, 0, 0, 1, 0]),
        torch.randn(1, 3, 2, 2, 2, generator=torch.Generator().manual_seed(0)),
    )
    batch = batch_of(labels)
    found = {name: build_task(SegmentationTask(loss=name)).loss(logits, batch) for name in LOSSES}
    p, truth = logits.softmax(dim=1), F.one_hot(labels.long(), 3).movedim(-1, 1).float()
    both, volumes = (p * truth)[:, 1:].sum((2, 3, 4)), (p + truth)[:, 1:].sum((2, 3, 4))
    dice = 1 - (2 * both / volumes).mean()
    sure = (p * truth).sum(dim=1)
    focal = (-((1 - sure) ** 2) * sure.log()).sum() / truth.numel()  # MONAI's mean counts every class of a voxel
    assert found["dice_ce"].item() == pytest.approx((dice - sure.log().mean()).item(), abs=1e-4)
    assert found["dice_focal"].item() == pytest.approx((dice + focal).item(), abs=1e-4)
    false, missed = (p * (1 - truth))[:, 1:].sum((2, 3, 4)), ((1 - p) * truth)[:, 1:].sum((2, 3, 4))
    assert found["tversky"].item() == pytest.approx(
        (1 - (both / (both + 0.3 * false + 0.7 * missed)).mean()).item(), abs=1e-4
    )


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_nothing_is_learned_where_nobody_drew_whatever_the_loss(name):
    task = build_task(SegmentationTask(loss=name))
    labels = maps([1, 255, 0, 2, 0, 255, 1, 0])
    logits = torch.randn(1, 3, 2, 2, 2, requires_grad=True)
    task.loss(logits, batch_of(labels)).backward()
    ignored = (labels == 255)[:, None].expand_as(logits)
    assert not logits.grad[ignored].any() and bool(logits.grad[~ignored].any())


def partly(known, *, structures=("a", "b"), seed=0):
    """A task, an output of two cases, and a batch in which centers outline what ``known`` (2, S) says."""
    draw = torch.Generator().manual_seed(seed)
    task = build_task(SegmentationTask(structures=list(structures)))
    mask = torch.randint(0, len(structures) + 1, (2, 1, 4, 4, 4), generator=draw)
    target = {"mask": mask, "known": torch.tensor(known)}
    return task, torch.randn(2, 1 + len(structures), 4, 4, 4, generator=draw), Batch({}, {}, target)


def test_a_structure_that_is_not_outlined_counts_as_background_or_itself():
    """The marginal likelihood: -log(p(background) + p(b)) where nothing else is drawn."""
    task, output, batch = partly([[1.0, 0.0], [1.0, 0.0]])
    p = output.softmax(dim=1)
    told = batch.target["mask"][:, 0]
    by_hand = torch.where(told == 1, -p[:, 1].log(), -(p[:, 0] + p[:, 2]).log()).mean()
    assert task.likelihood_loss(output, batch).item() == pytest.approx(by_hand.item(), rel=1e-5)
    other = batch.target["mask"].masked_fill(batch.target["mask"] == 2, 0)
    without = Batch({}, {}, {**batch.target, "mask": other})
    assert task.loss(output, without).item() == pytest.approx(task.loss(output, batch).item())


def test_where_all_are_outlined_the_loss_is_the_loss():
    task, output, batch = partly([[1.0, 1.0], [1.0, 1.0]])
    plain = Batch({}, {}, {"mask": batch.target["mask"]})
    rows = [Batch({}, {}, {"mask": plain.target["mask"][r : r + 1]}) for r in (0, 1)]
    each = torch.stack([task.loss(output[r : r + 1], row) for r, row in enumerate(rows)])
    assert task.loss(output, batch).item() == pytest.approx(each.mean().item(), rel=1e-6)
    assert task.likelihood_loss(output, batch).item() == pytest.approx(task.likelihood_loss(output, plain).item())


def test_where_nothing_is_outlined_nothing_is_learned_and_nothing_is_scored():
    task, output, batch = partly([[0.0, 0.0], [0.0, 1.0]])
    [first, second] = task.observe(output, batch)
    assert all((values == 0).all() for values in first.values())
    assert second["truth"][0] == 0 and second["truth"][1] > 0
    sums = task.sums([first, second])
    assert sums["dice_cases"].tolist() == [0.0, 1.0] and task.metrics(sums)["dice_a"] is None
    alone = Batch({}, {}, {name: tensor[:1] for name, tensor in batch.target.items()})
    logits = output[:1].clone().requires_grad_()
    task.loss(logits, alone).backward()
    assert (logits.grad == 0).all()
