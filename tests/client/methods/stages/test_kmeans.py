"""Who is kept: golden values, and floors where the published rule keeps nobody."""

import numpy as np
import pytest

from client.methods.stages.kmeans import farthest_first, kmeans, nearest, selected, sizes

UNITS = np.array([[0, 0], [0, 1], [1, 0], [0.9, 0.9], [5, 5], [5, 6], [6, 5], [5.2, 5.1], [10, 0], [9, 0.5]])
START = np.array([[0.0, 0.0], [5.0, 5.0], [10.0, 0.0]])


def test_the_golden_clusters_and_the_two_nearest_of_each():
    found = kmeans(UNITS, START)
    np.testing.assert_allclose(found.centers, [[0.475, 0.475], [5.3, 5.275], [9.5, 0.25]])
    assert found.labels.tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2]
    np.testing.assert_allclose(found.distances[[0, 3, 7, 8]], [0.671751, 0.601041, 0.201556, 0.559017], atol=1e-6)
    assert nearest(found, 2) == {0: [3, 0], 1: [7, 4], 2: [8, 9]}


def test_a_start_that_knows_nothing_finds_the_same_clusters():
    found = kmeans(UNITS, farthest_first(UNITS, 3))
    assert sorted(map(tuple, found.centers.round(3).tolist())) == [(0.475, 0.475), (5.3, 5.275), (9.5, 0.25)]


@pytest.mark.parametrize("units", [1, 2, 18, 19, 20, 44, 55, 72, 99, 100, 196, 524, 10594])
def test_every_site_keeps_somebody_and_a_large_one_what_the_paper_keeps(units):
    number, each = sizes(units, clusters=0.01, kept=0.05)
    assert number >= 1 and each >= 1
    if units in (196, 524):
        assert number * each == pytest.approx(0.05 * units, abs=number)


def test_a_small_site_keeps_the_nearest_to_its_mean():
    few = np.arange(18.0)[:, None] ** 2
    [place] = selected(few, clusters=0.5, kept=0.05)
    assert place == np.abs(few[:, 0] - few.mean()).argmin()


def test_nobody_is_kept_of_nobody_and_everybody_of_few_who_are_all_asked_for():
    assert selected(np.zeros((0, 3)), clusters=0.01, kept=0.05) == []
    assert selected(UNITS, clusters=1.0, kept=1.0) == list(range(10))


def test_who_is_kept_does_not_depend_on_the_order_of_units():
    units = np.random.default_rng(0).normal(size=(60, 4))
    order = np.random.default_rng(1).permutation(60)
    kept = selected(units, clusters=0.05, kept=0.2)
    again = selected(units[order], clusters=0.05, kept=0.2)
    assert 3 <= len(kept) <= 12
    assert sorted(order[again].tolist()) == kept
