"""Survival from counts, against the same patients one by one."""

from __future__ import annotations

import pytest
from lifelines import KaplanMeierFitter
from lifelines.statistics import logrank_test

from common.errors import LedgerError
from server.report.survival import risk_groups

COUNTS = {"grid_days": [100, 200, 300], "at_risk": [[10, 8, 5], [6, 3, 1]], "events": [[1, 0, 2], [3, 1, 0]]}


def patients(at_risk: list[int], events: list[int]) -> tuple[list[int], list[int]]:
    times, happened = [], []
    for day, n, d, rest in zip(COUNTS["grid_days"], at_risk, events, [*at_risk[1:], 0], strict=True):
        times += [day] * (n - rest)
        happened += [1] * d + [0] * (n - rest - d)
    return times, happened


def test_curves_equal_the_product_worked_out_by_hand():
    groups = risk_groups(COUNTS)
    assert groups.low.days == [0, 100, 200, 300]
    assert groups.low.survival == pytest.approx([1, 9 / 10, 9 / 10, 9 / 10 * 3 / 5])
    assert groups.high.survival == pytest.approx([1, 3 / 6, 3 / 6 * 2 / 3, 3 / 6 * 2 / 3])
    assert groups.low.at_risk == [10, 10, 8, 5] and groups.high.events == 4


def test_counts_give_the_same_curve_and_p_value_as_single_patients():
    groups = risk_groups(COUNTS)
    low, high = (patients(n, d) for n, d in zip(COUNTS["at_risk"], COUNTS["events"], strict=True))
    alone = KaplanMeierFitter().fit(*low)
    assert groups.low.survival == pytest.approx(alone.survival_function_at_times([0, 100, 200, 300]).tolist())
    assert groups.p == pytest.approx(logrank_test(low[0], high[0], low[1], high[1]).p_value)


def test_a_grid_of_edges_means_the_same_as_a_grid_of_ends():
    assert risk_groups(COUNTS | {"grid_days": [0, 100, 200, 300]}) == risk_groups(COUNTS)


def test_an_empty_group_has_no_p_value():
    assert risk_groups(COUNTS | {"at_risk": [[10, 8, 5], [0, 0, 0]], "events": [[1, 0, 2], [0, 0, 0]]}).p is None


def test_nobody_relapsing_has_no_p_value():
    assert risk_groups(COUNTS | {"events": [[0, 0, 0], [0, 0, 0]]}).p is None


@pytest.mark.parametrize(
    ("change", "words"),
    [({"at_risk": [[10, None, 5], [6, 3, 1]]}, "suppressed"), ({"at_risk": [[5, 8, 9], [6, 3, 1]]}, "do not add up")],
)
def test_counts_that_are_no_survival_table_are_refused(change, words):
    with pytest.raises(LedgerError, match=words):
        risk_groups(COUNTS | change)
