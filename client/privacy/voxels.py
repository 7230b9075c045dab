"""Rows and histograms whose units are voxels: patients are what is counted, and a few of them share nothing either.

The rules are those of `client.privacy.rows`, with a patient in the place of a row: which modalities a patient has,
and in which patients a structure was drawn. A histogram's bin waits for the next ones until enough patients have voxels
in it, and a point of the fit is answered where enough patients weigh something, whatever their voxels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from client.privacy.path import effective_number
from client.privacy.rows import UNKNOWN, Shared, common_flags, values_by
from common.exact.columns import Layout, Rows
from common.tasks.cells import few


@dataclass(frozen=True)
class VoxelRows:
    """Drawn voxels as rows, and the place (n,) of the patient of each."""

    rows: Rows
    patient: np.ndarray


def shared_voxels(layout: Layout, drawn: VoxelRows, *, minimum: int) -> Shared:
    """The rows with nothing of a few patients in them: a pattern of modalities that a few have becomes the nearest one,
    and a structure that was drawn in a few, or differs from an earlier one in a few, is unknown everywhere."""
    if minimum <= 1:
        return Shared(drawn.rows, patient=drawn.patient)
    rows, patient = drawn.rows, drawn.patient
    names, first, place = np.unique(patient, return_index=True, return_inverse=True)
    own = rows.flags[first]
    common = common_flags(own, minimum)
    target = _told(rows.target, place, len(names), minimum)
    flags = common[place]
    adjusted = int((common != own).any(axis=1).sum())
    silent = bool((target < 0).all())
    return Shared(Rows(values_by(layout, rows, flags), flags, target), adjusted, silent, patient)


def _told(target: np.ndarray, place: np.ndarray, patients: int, minimum: int) -> np.ndarray:
    told = np.array(target)
    kept: list[np.ndarray] = []
    for column in range(target.shape[1]):
        inside = target[:, column] > 0
        near = any(few(_patients(inside != before, place, patients), minimum) for before in kept)
        if few(_patients(inside, place, patients), minimum) or near:
            told[:, column] = UNKNOWN
        else:
            kept.append(inside)
    return told


def _patients(rows: np.ndarray, place: np.ndarray, patients: int) -> float:
    """In how many patients a mask of rows is true somewhere."""
    return float((np.bincount(place, weights=rows, minlength=patients) > 0).sum())


def shared_bins(volumes: np.ndarray, *, minimum: int) -> np.ndarray:
    """Volumes by bin, summed over patients, every bin of none or of enough, of whom no few have nearly all of it; zeros
    where not even all are enough.

    Args:
        volumes: (patients, ..., bins), each patient's own.
    """
    if minimum <= 1:
        return volumes.sum(axis=0)
    lead, bins = volumes.shape[1:-1], volumes.shape[-1]
    rows = volumes.reshape(len(volumes), -1, bins)
    told = [_merged(rows[:, row], minimum) for row in range(rows.shape[1])]
    return np.array(told).reshape(*lead, bins)


def _merged(volumes: np.ndarray, minimum: int) -> np.ndarray:
    """One histogram (patients, bins): a merged bin stands where it was enough, the last one takes what is left.

    Enough are as many patients as the minimum, who weigh like more than half of that many equal ones
    (`client.privacy.path`): voxels count for nothing, and a large tumor hides no small ones.
    """
    found = np.zeros(volumes.shape[1])
    waiting = np.zeros(len(volumes))
    last = -1
    for place in np.flatnonzero(volumes.sum(axis=0)):
        waiting += volumes[:, place]
        if (waiting > 0).sum() >= minimum and effective_number(waiting) >= (minimum + 1) / 2:
            found[place], last = waiting.sum(), int(place)
            waiting = np.zeros(len(volumes))
    if last >= 0:
        found[last] += waiting.sum()
    return found
