"""What is told of voxels is told of enough patients: what a few have is merged or left out."""

from __future__ import annotations

import numpy as np
import pytest

from client.privacy.voxels import VoxelRows, shared_bins, shared_voxels
from common.exact.columns import Layout, Rows

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
