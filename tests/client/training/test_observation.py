"""Test cases of a segmentation are scored where they were drawn: on the CT's own grid, over all of it."""

from __future__ import annotations

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch

from client.data.case import Case
from client.data.dataset import CaseSet
from client.training.observation import compared, is_scored_where_drawn
from common.config.step import Step
from common.config.task import SegmentationTask
from common.config.view import View
from common.tasks import build_task, merge_sums
from common.tasks.bounds import impossible
from common.tasks.cells import guarded
from simulations.comparison.baselines import baseline_order
from tests.helpers.small import small_run

VIEW = View(spacing_mm=[6.0] * 3, size=[8] * 3, window=[8] * 3, crop="center")  # 48 mm in the middle


def written(folder, labels, *, spacing=2.0, label_affine=None) -> Case:
    """A CT of 48 voxels a side with this label."""
    affine = nib.affines.from_matvec(np.diag([spacing] * 3), [0, 0, 0])
    ct = np.random.default_rng(0).normal(0, 60, labels.shape).astype(np.int16)
    nib.save(nib.Nifti1Image(ct, affine), folder / "ct.nii")
    nib.save(nib.Nifti1Image(labels, affine if label_affine is None else label_affine), folder / "label.nii")
    return Case("A-1", "A", {"CT": folder / "ct.nii"}, folder / "label.nii", {}, None, None, None, None)


def scored(case: Case, *, view: View = VIEW, probabilities=None):
    """The record of a case, by default under the answer that is perfect on the view's grid."""
    step = Step(name="s", task=SegmentationTask(), view=view)
    cases = CaseSet([case], step)
    mask, place = cases.collate([0]).target["mask"][0], cases.own_grid(0)
    if probabilities is None:
        probabilities = torch.nn.functional.one_hot(mask[0].long(), 3).permute(3, 0, 1, 2).float()
    return compared(build_task(step.task), probabilities, place, mask=mask)


def two_boxes(side=48):
    labels = np.zeros((side,) * 3, np.uint8)
    labels[15:31, 16:32, 14:29] = 1
    labels[2:6, 2:6, 2:6] = 2  # beyond the view
    return labels


def test_a_perfect_answer_where_both_grids_coincide_is_perfect(tmp_path):
    labels = two_boxes()
    labels[2:6, 2:6, 2:6] = 0
    view = replace(VIEW, spacing_mm=[2.0] * 3, size=[48] * 3, window=[48] * 3)
    record = scored(written(tmp_path, labels), view=view)
    volume = 16 * 16 * 15 * 8.0
    assert record["intersection"].tolist() == record["predicted"].tolist() == record["truth"].tolist() == [volume, 0]
    assert record["ceiling_intersection"].tolist() == record["ceiling_predicted"].tolist() == [volume, 0]


def test_volumes_are_the_labels_own_and_what_the_model_never_saw_is_missed(tmp_path):
    record = scored(written(tmp_path, two_boxes()))
    assert record["truth"].tolist() == [16 * 16 * 15 * 8.0, 4 * 4 * 4 * 8.0]
    assert record["predicted"][1] == 0 and record["intersection"][1] == 0
    assert record["ceiling_predicted"].tolist() == record["predicted"].tolist()  # the answer was the perfect one
    assert 0 < record["intersection"][0] < record["truth"][0]


def test_a_false_tumor_anywhere_in_the_view_counts(tmp_path):
    probabilities = torch.zeros(3, 8, 8, 8)
    probabilities[0] = 1
    probabilities[:, 1, 1, 1] = torch.tensor([0.0, 0.0, 1.0])
    record = scored(written(tmp_path, two_boxes()), probabilities=probabilities)
    assert record["predicted"][1] > 0 and record["intersection"].tolist() == [0, 0]


def test_a_label_on_a_grid_of_its_own_is_met_there_by_nearest_neighbor(tmp_path):
    """HECKTOR's rule: a mask on the CT's grid, then nearest to the truth's; volumes are the truth's own."""
    fine = np.repeat(np.repeat(np.repeat(two_boxes(), 2, 0), 2, 1), 2, 2)
    half = nib.affines.from_matvec(np.diag([1.0] * 3), [-0.5] * 3)
    same = scored(written(tmp_path, two_boxes()))
    case = written(tmp_path, two_boxes())
    nib.save(nib.Nifti1Image(fine, half), case.label)
    finer = scored(case)
    for name in ("truth", "predicted", "intersection"):
        assert finer[name] == pytest.approx(same[name], rel=1e-6), name


def test_a_file_that_is_stored_from_left_to_right_is_the_same_case(tmp_path):
    labels = two_boxes()
    here = scored(written(tmp_path, labels))
    case = written(tmp_path, labels)
    flipped = nib.affines.from_matvec(np.diag([-2.0, 2, 2]), [94, 0, 0])
    for path in (case.images["CT"], case.label):
        data = np.asarray(nib.load(path).dataobj)[::-1].copy()
        nib.save(nib.Nifti1Image(data, flipped), path)
    turned = scored(case)
    assert all(np.array_equal(turned[name], here[name]) for name in here)


def test_sums_of_centers_merge_into_the_pooled_scores_and_ceilings(tmp_path):
    records = []
    for number, shift in enumerate((0, 3, 7)):
        folder = tmp_path / str(number)
        folder.mkdir()
        records.append(scored(written(folder, np.roll(two_boxes(), shift, axis=0))))
    task = build_task(SegmentationTask())
    apart = merge_sums([task.sums(records[:1]), task.sums(records[1:])])
    together = task.sums(records)
    assert {name: np.shape(value) for name, value in together.items()} == task.sum_shapes
    assert all(apart[name] == pytest.approx(together[name], abs=1e-9) for name in together)
    metrics = task.metrics(apart)
    each = [2 * r["intersection"][0] / (r["predicted"][0] + r["truth"][0]) for r in records]
    assert metrics["dice_GTVp"] == pytest.approx(np.mean(each))
    assert metrics["dice_ceiling_GTVp"] == metrics["dice_GTVp"] and metrics["dsc_agg_ceiling"] == metrics["dsc_agg"]
    assert 0.5 < metrics["dice_GTVp"] < 0.95


def test_a_missed_tumor_is_as_far_away_as_the_image_allows_and_stays_in_the_median(tmp_path):
    nothing = torch.zeros(3, 8, 8, 8)
    nothing[0] = 1
    case = written(tmp_path, two_boxes())
    record, diagonal = scored(case, probabilities=nothing), 3**0.5 * 47 * 2
    assert record["hd95"] == pytest.approx([diagonal, diagonal]) and record["surface_dice"].tolist() == [0, 0]
    assert [record[f"lesions_{name}"].tolist() for name in ("found", "false", "missed")] == [[0, 0], [0, 0], [1, 1]]
    task = build_task(SegmentationTask())
    found = task.metrics(task.sums([record, scored(case)]))
    assert (found["hd95_median_from_GTVp"], found["hd95_median_to_GTVp"]) == (100.0, None)
    found = task.metrics(task.sums([record, scored(case), scored(case)]))
    assert found["hd95_median_to_GTVp"] <= 6.0  # the other two are within a voxel of the view
    assert found["lesion_f1_GTVp"] == pytest.approx(2 * 2 / (2 * 2 + 1)) and found["lesion_f1_GTVn"] == 0.0


def test_small_cells_of_distances_are_merged_and_the_median_lies_between_both_ways_of_telling(tmp_path):
    task = build_task(SegmentationTask(structures=["GTV"]))
    true = np.array([0.5, 1.5, 2.5, 2.6, 2.7, 4.5, 5.5, 7.0, 9.0, 40.0, 55.0, 60.0])
    volume = np.array([8.0])
    whole = dict.fromkeys(("intersection", "predicted", "truth"), volume)
    pieces = dict.fromkeys(("lesions_found", "lesions_false", "lesions_missed"), np.array([1.0]))
    records = [whole | pieces | {"hd95": np.array([mm]), "surface_dice": volume / 16} for mm in true]
    sums = task.sums(records)
    told, changed = guarded(sums, task.cells, cases=len(true), minimum=5)
    assert changed and all(count == 0 or count >= 5 for count in told["hd95_to"].ravel())
    assert not impossible(told, bounds=task.bounds, cases=len(true))
    before, after = task.metrics(sums), task.metrics(told)
    assert (before["hd95_median_from_GTV"], before["hd95_median_to_GTV"]) == (5.0, 6.0)
    assert after["hd95_median_from_GTV"] <= 5.0 and (
        after["hd95_median_to_GTV"] is None or after["hd95_median_to_GTV"] >= 6
    )


def test_test_cases_are_scored_where_they_were_drawn_and_rounds_are_chosen_on_the_views_grid():
    run = small_run()
    step = run.steps["tumour_ct"]
    order = baseline_order(run, step, base="b", state={})
    assert not is_scored_where_drawn(replace(order, subset="validation"))
    assert is_scored_where_drawn(replace(order, subset="test"))
    on_view = replace(step, view=replace(step.view, score_on="training"))
    assert not is_scored_where_drawn(replace(order, subset="test", step=on_view))
