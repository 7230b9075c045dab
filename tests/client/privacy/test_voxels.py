"""What is told of voxels is told of enough patients: what a few have is merged or left out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.privacy.path import Point, check_weight, effective_number
from client.privacy.voxels import VoxelRows, shared_bins, shared_voxels
from common.errors import PolicyRefusal
from common.exact.columns import Layout, Rows, Scaling
from common.exact.objectives import build_objective
from common.exact.search import advance, begin

LAYOUT = Layout(("CT.raw", "PET.raw"), ("CT", "PET"), (0, 1), with_flags=False)


def drawn(has_pet: list[bool], has_structure: list[bool], *, voxels: int = 4) -> VoxelRows:
    patient = np.repeat(np.arange(len(has_pet)), voxels)
    flags = np.stack([np.ones(len(patient)), np.repeat(has_pet, voxels).astype(float)], axis=1)
    values = np.arange(2.0 * len(patient)).reshape(-1, 2) * flags
    inside = np.repeat(has_structure, voxels) & (np.arange(len(patient)) % voxels == 0)
    return VoxelRows(Rows(values, flags, inside[:, None].astype(float)), patient)


def test_a_minimum_of_one_changes_nothing():
    rows = drawn([True, False], [True, False])
    assert shared_voxels(LAYOUT, rows, minimum=1).rows is rows.rows


@pytest.mark.parametrize("with_pet", range(7))
def test_no_pattern_of_modalities_is_of_a_few(with_pet):
    rows = drawn([i < with_pet for i in range(6)], [True] * 6)
    shared = shared_voxels(LAYOUT, rows, minimum=3)
    patients = [{tuple(f) for f in shared.rows.flags[rows.patient == p]} for p in range(6)]
    assert all(len(own) == 1 for own in patients)
    counts = [patients.count(own) for own in patients]
    assert min(counts) >= 3
    assert shared.adjusted == (min(with_pet, 6 - with_pet) if min(with_pet, 6 - with_pet) < 3 else 0)


def test_a_structure_of_a_few_is_unknown_everywhere():
    shared = shared_voxels(LAYOUT, drawn([True] * 6, [True, True] + [False] * 4), minimum=3)
    assert (shared.rows.target == -1).all() and shared.silent
    assert not shared_voxels(LAYOUT, drawn([True] * 6, [True] * 3 + [False] * 3), minimum=3).silent


def test_a_structure_that_differs_from_another_in_a_few_is_unknown():
    rows = drawn([True] * 6, [True] * 6)
    second = rows.rows.target.copy()
    second[1] = 1.0  # one more voxel in one patient
    both = Rows(rows.rows.values, rows.rows.flags, np.concatenate([rows.rows.target, second], axis=1))
    found = shared_voxels(LAYOUT, VoxelRows(both, rows.patient), minimum=3).rows.target
    assert (found[:, 1] == -1).all() and np.array_equal(found[:, 0], both.target[:, 0])


def test_bins_wait_for_enough_patients_and_lose_no_volume():
    volumes = np.zeros((4, 1, 8))
    volumes[0, 0, 1], volumes[1, 0, 2], volumes[2, 0, 2], volumes[3, 0, 5], volumes[0, 0, 7] = 1, 2, 3, 4, 5
    merged = shared_bins(volumes, minimum=3)
    assert merged.tolist() == [[0, 0, 15, 0, 0, 0, 0, 0]]
    assert np.array_equal(shared_bins(volumes, minimum=1), volumes.sum(axis=0))
    assert not shared_bins(volumes[:2], minimum=3).any()


def voxels_of(patients: int, *, each: int, seed: int = 0) -> VoxelRows:
    """Standardised voxels, a quarter of them inside."""
    rng = np.random.default_rng(seed)
    count = patients * each
    inside = (np.arange(count) % 4 == 0).astype(float)[:, None]
    patient = np.repeat(np.arange(patients), each)
    return VoxelRows(Rows(rng.normal(size=(count, 2)), np.ones((count, 2)), inside), patient)


def test_a_point_that_one_patients_voxels_carry_is_refused():
    """Fifty voxels of one patient are fifty rows with a weight, and still one patient."""
    drawn_ones, goal = voxels_of(20, each=50), build_objective("logistic")
    drawn_ones.rows.values[drawn_ones.patient == 3, 0] += 8.0
    shared = shared_voxels(LAYOUT, drawn_ones, minimum=5)
    aimed = Point(Scaling(np.zeros(2), np.ones(2)), np.array([[-24.0, 3.0, 0.0]]))  # about 8 in the first column
    [weight] = goal.weights(shared.rows.values, shared.rows.target, aimed.beta)
    of_patients = np.bincount(shared.patient, weights=weight)
    assert effective_number(weight) > 3 > effective_number(of_patients) and of_patients.argmax() == 3
    check_weight(aimed, LAYOUT, shared.rows, goal, minimum=5)  # counted as rows it would be answered
    with pytest.raises(PolicyRefusal, match=r"of 1\.\d patients in effect") as refusal:
        check_weight(aimed, LAYOUT, shared.rows, goal, minimum=5, patient=shared.patient)
    assert refusal.value.code == "declined.weight"


def test_an_honest_search_over_voxels_is_answered_to_its_end():
    goal = build_objective("logistic")
    shared = shared_voxels(LAYOUT, voxels_of(12, each=40), minimum=5)
    search = begin(goal.shape(2))
    while not search.done:
        point = Point(Scaling(np.zeros(2), np.ones(2)), search.asked)
        check_weight(point, LAYOUT, shared.rows, goal, minimum=5, patient=shared.patient)
        sums = goal.sums(shared.rows.values, shared.rows.target, search.asked)
        search = advance(search, sums, penalty=goal.penalised(2))
    assert search.rounds < 20


def test_an_unknown_structure_has_no_weight():
    goal, rows = build_objective("logistic", classes=2), voxels_of(6, each=4).rows
    target = np.concatenate([rows.target, np.full_like(rows.target, -1.0)], axis=1)
    known, unknown = goal.weights(rows.values, target, np.zeros((2, 3)))
    assert np.allclose(known, 0.25) and not unknown.any() and len(unknown) == len(rows)


def test_a_large_tumor_hides_no_small_ones():
    """Five patients have a voxel in the bin, and one of them has nearly all of it: it waits."""
    volumes = np.zeros((8, 1, 4))
    volumes[:5, 0, 1], volumes[0, 0, 1], volumes[5:, 0, 2] = 1.0, 1000.0, 400.0
    assert shared_bins(volumes, minimum=5).tolist() == [[0, 0, 2204.0, 0]]
    volumes[0, 0, 1] = 1.0
    assert shared_bins(volumes, minimum=5).tolist() == [[0, 1205.0, 0, 0]]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), patients=st.integers(1, 12), minimum=st.integers(2, 6))
def test_every_told_bin_is_of_enough_patients(seed, patients, minimum):
    rng = np.random.default_rng(seed)
    volumes = rng.exponential(1.0, (patients, 2, 9)) * (rng.random((patients, 2, 9)) < 0.4)
    told = shared_bins(volumes, minimum=minimum)
    for row, own in enumerate(np.moveaxis(volumes, 1, 0)):
        edges = np.flatnonzero(told[row])
        begun = 0
        for edge in edges:
            stop = volumes.shape[-1] if edge == edges[-1] else edge + 1
            assert (own[:, begun : edge + 1].sum(axis=1) > 0).sum() >= minimum
            assert told[row, edge] == pytest.approx(own[:, begun:stop].sum())
            begun = edge + 1
