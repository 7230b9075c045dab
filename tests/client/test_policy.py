"""A hospital's floor holds whatever the server asks, and a refusal travels as a code."""

import pytest

from client.policy import Policy, check_cases, check_order
from common.config.schema import BackboneSpec, Split
from common.errors import PolicyRefusal
from common.orders import Order
from tests.small import small_run


def order(number=1):
    return Order(small_run(steps=["tumour_ct"]).steps["tumour_ct"], 1, number, BackboneSpec(), "base", Split())


@pytest.mark.parametrize(
    ("policy", "code"),
    [
        (Policy(tasks=["prognosis", "classification"]), "declined.task"),
        (Policy(bases=["other"]), "declined.base"),
        (Policy(maximum_rounds=4), "declined.rounds"),
    ],
)
def test_an_order_below_the_floor_is_declined(policy, code):
    with pytest.raises(PolicyRefusal) as refusal:
        check_order(policy, order(5))
    assert refusal.value.code == code


def test_an_open_policy_and_a_matching_one_let_an_order_pass():
    for policy in (Policy(), Policy(tasks=["segmentation"], bases=["base"], maximum_rounds=5)):
        check_order(policy, order(5))


@pytest.mark.parametrize(
    ("cases", "minimum", "is_declined"), [(0, 0, True), (4, 5, True), (5, 5, False), (1, 1, False)]
)
def test_too_few_cases_do_not_train(cases, minimum, is_declined):
    if is_declined:
        with pytest.raises(PolicyRefusal, match=f"{cases} usable training cases"):
            check_cases(Policy(minimum_cases=minimum), cases)
    else:
        check_cases(Policy(minimum_cases=minimum), cases)
