"""Questions: two orders meet in the record where anything of their sums is over the same, however it is spelled."""

import copy
from dataclasses import replace

import pytest

from client.privacy.sums import question_of_labels, question_of_rows, question_of_scores
from common.backbones import load_backbone
from common.model.building import exact_layout
from tests.helpers.actions import order_of


def changed(name, **changes):
    """The action's order with another step."""
    order = order_of(name)
    step = copy.deepcopy(order.step)
    for field, value in changes.items():
        setattr(step.task if hasattr(step.task, field) else step, field, value)
    return replace(order, step=step)


def rows_of(order):
    return question_of_rows(order, exact_layout(load_backbone(order.backbone), order.step))


def columns_of(order):
    return {one for one in rows_of(order).about if not one.startswith("target|")}


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("gram", "target|classification|hpv"),
        ("newton", "target|prognosis|"),
        ("moments", "target|prognosis|"),
    ],
)
def test_an_exact_fit_is_about_its_target_whatever_its_columns(name, target):
    order = order_of(name)
    assert rows_of(order).about - columns_of(order) == {target}
    assert rows_of(order).meets(question_of_labels(order)) and question_of_labels(order).about == {target}
    records, image = changed(name, modalities=["RECORD"]), changed(name, modalities=["CT"])
    assert not columns_of(records) & columns_of(image) and rows_of(records).meets(rows_of(image))


def test_histograms_of_voxels_and_an_exact_segmentation_are_about_each_structure():
    both, one = changed("thresholds", structures=["GTVp", "GTVn"]), changed("thresholds", structures=["GTVn"])
    assert rows_of(both).about >= {"target|segmentation|GTVn", "target|segmentation|GTVp"}
    assert rows_of(one).about - columns_of(one) == {"target|segmentation|GTVn"}
    assert {one.partition("|")[0] for one in columns_of(both)} == {"CT"}


def test_scores_of_structures_meet_where_one_is_in_both():
    scores = [question_of_scores(changed("thresholds", structures=s)) for s in (["GTVp"], ["GTVp", "GTVn"], ["GTVn"])]
    assert scores[0].meets(scores[1]) and scores[1].meets(scores[2]) and not scores[0].meets(scores[2])


def test_features_are_what_they_are_made_from_in_any_order_beside_any_record_and_on_any_base():
    both = columns_of(changed("moments", modalities=["CT", "PET"]))
    assert both == columns_of(changed("moments", modalities=["PET", "CT"])) == {"image|CT+PET"}
    alone, record = (columns_of(changed("moments", modalities=m)) for m in (["CT"], ["CT", "RECORD"]))
    assert alone == {"image|CT"} and alone < record and "age" in record
    assert columns_of(replace(changed("moments", modalities=["CT"]), base="0" * 64)) == alone
    assert columns_of(changed("moments", modalities=["EHR", "CT"])) == {"image|CT", "text|EHR"}
