"""An estimate is written one way, and what was resampled becomes one."""

import numpy as np
import pytest

from common.metrics import Estimate, Resampled


def test_a_value_is_written_with_its_interval_where_it_has_one():
    assert Estimate(0.5, 0.25, 0.75, 9).text() == "0.500 [0.250, 0.750]"
    assert Estimate(-0.1, -0.2, 0.05, 9).text(signed=True) == "−0.100 [−0.200, +0.050]"
    assert Estimate(-0.125, -0.25, 0.5).text(signed=True, digits=2) == "−0.12 [−0.25, +0.50]"
    assert Estimate(0.5).text() == "0.500" and Estimate(None).text() is None
    assert Estimate(0.5).interval_text() == "" and Estimate(0.5).interval is None


def test_only_an_interval_that_is_wholly_below_zero_is_harm():
    assert Estimate(-0.1, -0.2, -0.01).is_below_zero
    assert not Estimate(-0.1, -0.2, 0.0).is_below_zero and not Estimate(-0.1).is_below_zero


def test_the_opposite_difference_has_its_ends_turned():
    assert Estimate(-0.1, -0.2, 0.05, 9).negated() == Estimate(0.1, -0.05, 0.2, 9)
    assert Estimate(None, n=3).negated() == Estimate(None, n=3)


def test_draws_without_a_value_are_left_out_and_a_missing_value_has_no_interval():
    drawn = np.array([0.0, np.nan, 1.0])
    found = Resampled(0.5, drawn).estimate(n=4)
    assert (found.value, found.n) == (0.5, 4) and found.interval == pytest.approx((0.025, 0.975))
    assert Resampled(None, drawn).estimate() == Estimate(None)
    assert Resampled(0.5, np.full(3, np.nan)).estimate() == Estimate(0.5)


def test_a_paired_difference_is_taken_draw_by_draw():
    a, b = Resampled(0.7, np.array([0.6, 0.8])), Resampled(0.5, np.array([0.5, 0.7]))
    assert a.minus(b).value == pytest.approx(0.2) and a.minus(b).drawn == pytest.approx([0.1, 0.1])
    assert a.minus(Resampled(None, b.drawn)).value is None
