"""Medians of resampled patients are those of the patients that were drawn."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from common.metrics import bootstrap_median


def upper_median(values):
    return sorted(values)[len(values) // 2] if len(values) else np.nan


@given(seed=st.integers(0, 10**6), count=st.integers(1, 9))
def test_a_drawn_median_is_that_of_the_patients_that_were_drawn_and_count(seed, count):
    rng = np.random.default_rng(seed)
    values, counted = rng.integers(0, 4, count) * 1.5, rng.random(count) < 0.7
    weights = rng.integers(0, 3, (6, count))
    value, drawn = bootstrap_median(values, counted, weights=weights)
    expected = [upper_median(np.repeat(values, times * counted)) for times in weights]
    np.testing.assert_array_equal(drawn, expected)
    assert value == (upper_median(values[counted]) if counted.any() else None)


def test_of_two_the_worse_is_the_median():
    assert bootstrap_median(np.array([2.0, 500.0]), np.array([True, True]), weights=np.ones((1, 2), int)).value == 500
