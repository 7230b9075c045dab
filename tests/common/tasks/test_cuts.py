"""A grid from sums: quantiles of everyone's events, and nobody's own times."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import ConfigError
from common.tasks.cells import guarded
from common.tasks.cuts import BINS, EVENTS, HISTOGRAM, event_histogram, quantile_cuts


def told_of(days, event, *, horizon, minimum):
    """The histogram as it leaves a center."""
    sums = {EVENTS: event_histogram(days, event, horizon=horizon)}
    return guarded(sums, [HISTOGRAM], cases=len(days), minimum=minimum)[0][EVENTS]


@given(
    days=st.lists(st.floats(0, 3000), max_size=60),
    minimum=st.integers(1, 8),
    censored=st.lists(st.booleans(), min_size=60, max_size=60),
)
@settings(max_examples=60, deadline=None)
def test_no_told_count_is_below_the_minimum_and_none_is_lost_once_one_is_told(days, minimum, censored):
    event = np.array([not c for c in censored[: len(days)]], float)
    told = told_of(np.array(days), event, horizon=1800, minimum=minimum)
    counted = sum(1 for d, e in zip(days, event, strict=True) if e and d <= 1800)
    rest = len(days) - counted  # censored or later: no fewer of them may be told by subtraction
    assert told.shape == (BINS,) and (told[told > 0] >= minimum).all()
    assert told.sum() == (counted if counted >= minimum and (rest == 0 or rest >= minimum) else 0)


def test_what_lies_beyond_the_horizon_and_who_is_censored_changes_nothing():
    days, event = np.array([10.0, 400, 900]), np.array([1.0, 1, 1])
    told = event_histogram(days, event, horizon=1000)
    more = event_histogram(np.r_[days, 5000, 77.7], np.r_[event, 1, 0], horizon=1000)
    assert (told == more).all()


def test_cuts_hold_equal_shares_of_the_events_and_end_at_the_horizon():
    days = np.random.default_rng(0).exponential(400, 4000)
    told = told_of(days, days <= 1200, horizon=1200, minimum=5)
    cuts = quantile_cuts(told, horizon=1200, cuts=6)
    assert cuts[0] == 0 and cuts[-1] == 1200 and len(cuts) == 6
    inside = days[days <= 1200]
    shares = np.diff([np.mean(inside <= c) for c in cuts])
    assert np.abs(shares - 0.2).max() < 0.03


def test_centers_histograms_add_to_that_of_all():
    rng = np.random.default_rng(1)
    parts = [rng.exponential(300, n) for n in (20, 50)]
    each = [event_histogram(p, np.ones(len(p)), horizon=1500) for p in parts]
    assert (sum(each) == event_histogram(np.concatenate(parts), np.ones(70), horizon=1500)).all()


@pytest.mark.parametrize("days", [[], [100.0, 100.0, 100.0]])
def test_too_few_different_times_are_a_sentence(days):
    told = event_histogram(np.array(days), np.ones(len(days)), horizon=1000)
    with pytest.raises(ConfigError, match=r"use fewer task\.bins, or task\.grid=equal"):
        quantile_cuts(told, horizon=1000, cuts=5)
