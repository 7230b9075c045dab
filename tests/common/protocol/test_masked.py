"""Which orders ask the same of an exact fit under masks: whatever decides no sum makes no other question."""

from dataclasses import replace

import pytest

from common.config.load import compose_run
from common.config.run import BackboneSpec, Split
from common.protocol.masked import question_of
from common.protocol.messages import Order


@pytest.fixture(scope="module")
def order():
    step = compose_run(["curriculum=exact", "backbone=tiny"]).steps["hpv_exact"]
    return Order(step, 1, 1, BackboneSpec(), "base", Split())


@pytest.mark.parametrize(
    "changed",
    [
        {"name": "other"},
        {"rounds": 3},
        {"budget": "7 steps"},
        {"modes": ["RECORD"]},
        {"centers": ["A"]},
        {"evaluate_at": ["A"]},
        {"starts_from": "earlier"},
        {"writes": "lineage"},
        {"age_cuts": [40.0]},
        {"stands_on": "earlier"},
        {"compared_with": "earlier"},
        {"subgroups": ["sex"]},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_a_field_that_decides_no_sum_makes_no_other_question(order, changed):
    other = replace(order, step=replace(order.step, **changed), seed=2, round=5)
    assert question_of(other, 1.0) == question_of(order, 1.0)


def test_what_decides_sums_does(order):
    others = [
        replace(order, step=replace(order.step, modalities=["RECORD", "CT"])),
        replace(order, step=replace(order.step, region="chest")),
        replace(order, base="another"),
        replace(order, split=Split(folds=9)),
    ]
    asked = [question_of(other, 1.0) for other in (order, *others)]
    assert len({*asked}) == len(asked)
