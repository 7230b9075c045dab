"""Dealing: cells of exactly the minimum, told at their middle, whatever the values."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.tasks.dealing import ENOUGH, FIRST, LAST, dealt_counts, dealt_places, dealt_table, dealt_times, dealt_values


def test_eleven_values_make_two_cells_that_stand_at_their_middle_patients():
    values = np.array([3.0, 1, 2, 5, 4, 11, 10, 9, 8, 7, 6])
    assert dealt_values(values, 5).tolist() == [5, 5, 5, 5, 5, 7, 7, 7, 7, 7, 7], "five lie at or beyond each"
    assert dealt_values(np.arange(15.0), 5).tolist() == [4.0] * 5 + [7.0] * 5 + [10.0] * 5
    assert dealt_values(np.arange(5.0), 5).tolist() == [2.0] * 5
    assert dealt_values(np.arange(4.0), 5) is None and dealt_values(np.zeros(0), 5).tolist() == []


def test_counts_are_dealt_as_values_are():
    counts = np.zeros(12)
    counts[[1, 2, 3, 4, 5]] = 1
    counts[11] = 6
    assert np.flatnonzero(dealt_counts(counts, 5)).tolist() == [5, 11]
    assert dealt_counts(counts, 5)[[5, 11]].tolist() == [5, 6]
    assert dealt_counts(counts, 5, left_over=False)[[5, 11]].tolist() == [5, 5]
    assert dealt_counts(counts, 5, at=FIRST)[[1, 11]].tolist() == [5, 6]
    assert dealt_counts(counts, 5, at=LAST)[[5, 11]].tolist() == [5, 6]
    assert dealt_counts(counts, 5, at=ENOUGH)[[5, 11]].tolist() == [5, 6]
    assert not dealt_counts(counts / 3, 5)[:11].any()


@given(values=st.lists(st.integers(0, 30), max_size=40), minimum=st.integers(2, 6))
def test_counts_and_values_say_the_same(values, minimum):
    told = dealt_values(np.array(values, np.int64), minimum)
    counts = dealt_counts(np.bincount(np.array(values, np.int64), minlength=31).astype(float), minimum)
    assert not counts.any() if told is None else np.array_equal(np.bincount(told, minlength=31), counts)


@given(values=st.lists(st.floats(-5, 5), min_size=2, max_size=60), minimum=st.integers(2, 6))
def test_enough_patients_lie_on_either_side_of_what_is_told(values, minimum):
    array = np.array(values)
    found = dealt_places(array, minimum)
    if found is None:
        assert len(values) < minimum
        return
    cell, place = found
    sizes = np.bincount(cell)
    assert (sizes[:-1] == minimum).all() and minimum <= sizes[-1] < 2 * minimum
    needed = min(minimum, (len(values) + 1) // 2)
    for told in array[place]:
        assert (array <= told).sum() >= needed <= (array >= told).sum()


@given(
    rows=st.lists(st.lists(st.integers(0, 30).map(lambda n: n if n >= 5 else 0), min_size=3, max_size=3), min_size=1)
)
def test_a_table_keeps_its_rows_and_is_off_by_less_than_the_minimum(rows):
    own = np.array(rows, float)
    told = dealt_table(own, 5)
    assert np.array_equal(told.sum(axis=1), own.sum(axis=1)) and (told >= 0).all()
    assert (np.abs(told - own) < 2 * 5).all() and ((told % 5 > 0).sum(axis=1) <= 1).all()
    assert not ((told > 0) & (told < 5)).any() and (told[own == 0] == 0).all()


def test_times_of_a_kind_of_a_few_are_not_dealt():
    kind = np.array([0] * 6 + [1] * 4)
    assert dealt_times(np.arange(10.0), kind, minimum=5) is None
    assert dealt_times(np.arange(10.0), kind, minimum=4).tolist() == [3.0] * 6 + [8.0] * 4


@pytest.mark.parametrize("grid", [np.arange(0, 900, step) for step in (3.0, 7.0, 100.0)])
def test_on_whichever_grid_whole_cells_leave(grid):
    rng = np.random.default_rng(0)
    time, kind = rng.uniform(0, 800, 60), rng.integers(0, 2, 60)
    told = dealt_times(time, kind, minimum=5)
    for which in (0, 1):
        stay = (told[kind == which][:, None] > grid).sum(axis=0)
        assert ((stay % 5 == 0) | (stay == (kind == which).sum())).all()
