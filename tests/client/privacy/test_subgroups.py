"""Scores by subgroup: exact where they leave, and no total minus its parts tells of a few."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.privacy.record import Question, chosen
from client.privacy.subgroups import subgroup_sums, tellable
from common.config.task import ClassificationTask, PrognosisTask, SegmentationTask
from common.data.subgroups import apart, members_of
from common.tasks import build_task
from common.tasks.base import merge_sums, subgroup_scores
from tests.client.privacy.test_record import people

SCORES = Question("scores", frozenset({"segmentation|GTVp"}))
SEGMENTATION = build_task(SegmentationTask(structures=["GTVp"]))


def drawn(both=1.0, predicted=2.0, truth=2.0):
    return {"intersection": np.array([both]), "predicted": np.array([predicted]), "truth": np.array([truth])}


def asked(tmp_path, sizes, *, minimum=5, total=None):
    """Levels that are told of a total of so many patients, of which the levels hold the first ones."""
    cases, groups, first = people(total or sum(sizes.values())), {}, 0
    for level, size in sizes.items():
        groups[level] = list(range(first, first + size))
        first += size
    if minimum > 1:
        chosen(SCORES, cases, vault=tmp_path, minimum=minimum)
    return tellable(SCORES, cases, groups, vault=tmp_path, minimum=minimum)


@pytest.mark.parametrize(
    ("sizes", "total", "told"),
    [
        ({"a": 6, "b": 7}, None, {"a", "b"}),
        ({"a": 6, "b": 4}, None, set()),  # b is small, and a would tell it
        ({"a": 12, "b": 8, "c": 3}, None, {"a"}),  # c is small, and the smaller of the others hides it
        ({"a": 12, "b": 8, "c": 5}, None, {"a", "b", "c"}),
        ({"a": 7, "b": 6}, 15, {"a"}),  # two patients' group is not recorded
    ],
)
def test_a_small_level_takes_the_smallest_that_would_tell_it_along(tmp_path, sizes, total, told):
    assert set(asked(tmp_path, sizes, total=total)) == told


def test_with_a_minimum_of_one_everything_is_told_and_nothing_is_recorded(tmp_path):
    assert set(asked(tmp_path, {"a": 1, "b": 3}, minimum=1)) == {"a", "b"}
    assert not list(tmp_path.iterdir())


def test_values_are_those_of_the_patients_of_a_level():
    records = [drawn(1), drawn(0), drawn(2), drawn(2)]
    sums = subgroup_sums(SEGMENTATION, records, {"hpv=positive": [0, 1], "hpv=negative": [2, 3]}, minimum=1)
    _, by_level = apart(sums)
    found = {level: subgroup_scores(SEGMENTATION, own)["dice"][0] for level, own in by_level.items()}
    assert found == {"hpv=positive": 0.25, "hpv=negative": 1.0}
    assert {level: float(own["cases"]) for level, own in by_level.items()} == {"hpv=positive": 2, "hpv=negative": 2}
    whole = merge_sums(by_level.values())
    assert whole["dice_sum"] == SEGMENTATION.sums(records)["dice_sum"], "all is the sum of its parts"


def test_who_has_a_structure_is_no_difference_of_a_few_either():
    """Of 20, nine have a structure: six of the twelve men, so three of the eight women."""
    has, lacks = drawn(), drawn(0, 0, 0)
    records = [has] * 6 + [lacks] * 6 + [has] * 3 + [lacks] * 5
    groups = {"sex=male": list(range(12)), "sex=female": list(range(12, 20))}
    _, by_level = apart(subgroup_sums(SEGMENTATION, records, groups, minimum=5))
    assert by_level["sex=male"]["dice_cases"] == 0 and by_level["sex=male"]["volumes"] == 0
    assert subgroup_scores(SEGMENTATION, by_level["sex=male"]) == {"dsc_agg": (None, None), "dice": (None, None)}
    everyone = [drawn()] * 12 + [drawn(2)] * 8
    _, by_level = apart(subgroup_sums(SEGMENTATION, everyone, groups, minimum=5))
    assert by_level["sex=male"]["dice_sum"] == 6 and by_level["sex=female"]["dice_sum"] == 8


def test_few_events_of_a_level_or_of_the_rest_leave_its_concordance_out():
    task = build_task(PrognosisTask())
    risk = np.linspace(1, 0, 24)

    def records(events):
        return [
            {"time": np.array(50.0 * (i + 1)), "event": np.array(float(i in events)), "risk": np.array(risk[i]),
             "survival": np.linspace(1, 0.5, task.bins)}
            for i in range(24)
        ]  # fmt: skip

    groups = {"hpv=negative": list(range(0, 24, 2)), "hpv=positive": list(range(1, 24, 2))}
    few = {0, 2, 4, 6, 8, 10, 1, 3}  # of the positive two
    _, by_level = apart(subgroup_sums(task, records(few), groups, minimum=5))
    assert all(own["comparable"] == 0 for own in by_level.values())
    _, by_level = apart(subgroup_sums(task, records(few | {5, 7, 9}), groups, minimum=5))
    assert {level: subgroup_scores(task, own)["c_index"][0] for level, own in by_level.items()} == {
        "hpv=negative": 1.0,
        "hpv=positive": 1.0,
    }


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.floats(-4, 4)), min_size=12, max_size=60))
def test_no_class_of_a_total_minus_its_parts_is_of_a_few_and_bins_are_whole_cells(patients):
    task = build_task(ClassificationTask(classes=["a"], form="binary"))
    records = [{"score": np.array([score]), "label": np.array([int(yes)])} for yes, _, score in patients]
    groups = {"sex=male": [i for i, p in enumerate(patients) if p[1]]}
    groups["sex=female"] = [i for i, p in enumerate(patients) if not p[1]]
    groups = {level: places for level, places in groups.items() if len(places) >= 5}
    minimum = 5
    _, by_level = apart(subgroup_sums(task, records, groups, minimum=minimum))
    true = task.sums(records)
    for level, own in by_level.items():
        rest = task.sums([records[i] for i in range(len(records)) if i not in groups[level]])
        for name in ("positives", "negatives"):
            told = own[name][0]
            assert not ((told > 0) & (told < minimum)).any()
            if told.sum():
                left = true[name].sum() - told.sum()
                assert left == rest[name].sum() and not 0 < left < minimum


def test_records_are_of_their_levels():
    step = type("Step", (), {"subgroups": ["age", "hpv", "sex", "t_stage"], "age_cuts": [50.0, 65.0]})()
    records = [{"age": 49.9, "hpv": 1.0}, {"age": 50.0, "gender": "male"}, {"age": 65.0, "t_stage": "t2"}, {}]
    found = {level: places for level, places in members_of(step, records).items() if places}
    assert found == {
        "age=under 50": [0], "age=50 to 65": [1], "age=65 or more": [2], "hpv=positive": [0], "sex=male": [1],
        "t_stage=t2": [2],
    }  # fmt: skip
