"""Rows of an exact fit that no sum can take apart: nothing in them is shared by 1 to minimum - 1 patients.

Gram and Newton sums hold, for every pair of columns, a sum over the patients who have both. Where a variable is
recorded for a few (or for all but a few), where two variables are recorded for almost the same patients, where a few
relapse in a month, the difference of two such sums is their record. So a center alters its rows before it sums, the
same for every question of a step:

- times on a hazard's grid are those of cells of exactly the minimum (`common.tasks.dealing`), dealt before there is a
  grid (`client.training.exact`), so that the sums on two grids differ by whole cells;
- within each group of patients with the same outcome, a pattern of recorded variables that a few have becomes the
  nearest one that others have: what they alone have recorded counts as not recorded, what they alone lack counts as
  recorded, at the mean of the center's recorded ones;
- an outcome that a few have or have not is not told: its sums are zero, as if the center had no patient for it.

With a minimum of 1 rows stay as they are. Sources: k-anonymity by generalisation (Samarati and Sweeney 1998).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from common.exact.columns import Layout, Rows
from common.tasks.cells import few
from common.tasks.dealing import dealt_times

UNKNOWN = -1.0


@dataclass(frozen=True)
class Shared:
    """Rows as they may be summed.

    Args:
        adjusted: how many patients' recorded variables or times were changed.
        silent: whether no outcome may be told: every sum but the moments is zero.
        patient: (n,) the place of the patient of each row, where a patient has several.
    """

    rows: Rows
    adjusted: int = 0
    silent: bool = False
    patient: np.ndarray | None = None


def shared_rows(
    layout: Layout, rows: Rows, *, objective: str, minimum: int, target: np.ndarray | None = None
) -> Shared:
    """The rows with nothing of a few patients in them.

    Args:
        objective: cox, hazard, logistic or ridge: what the targets mean.
        minimum: at most the number of rows.
        target: the targets where they were dealt before they were put on the step's grid; those of the rows if absent.
    """
    if minimum <= 1:
        return Shared(rows)
    target, group = _OUTCOMES[objective](rows.target if target is None else target, minimum)
    silent = group is None
    strict = group is not None and group.max(initial=0) < 0  # several outcomes at once: one pattern for all
    groups = np.zeros(len(rows), np.int64) if group is None or strict else group
    flags = np.array(rows.flags)
    for number in np.unique(groups):
        own = groups == number
        flags[own] = common_flags(rows.flags[own], len(rows) if strict else minimum)
    moved = (target != rows.target).any(axis=1) if objective == "hazard" and not silent else np.zeros(len(rows), bool)
    adjusted = int(((flags != rows.flags).any(axis=1) | moved).sum())
    return Shared(Rows(values_by(layout, rows, flags), flags, target), adjusted, silent)


def values_by(layout: Layout, rows: Rows, flags: np.ndarray) -> np.ndarray:
    """Values by altered flags: zero where not recorded, the mean of the recorded ones where there is none."""
    before, after = layout.known(rows.flags), layout.known(flags)
    mean = rows.values.sum(axis=0) / np.maximum(before.sum(axis=0), 1)
    return np.where(after > 0, np.where(before > 0, rows.values, mean), 0.0)


def common_flags(flags: np.ndarray, minimum: int) -> np.ndarray:
    """Flags (n, V) of which every pattern is that of enough rows: the rarest becomes its nearest, until none is rare.

    Of equally near ones a pattern with fewer recorded variables comes first, then the more common one.
    """
    flags = np.array(flags)
    while True:
        patterns, place, counts = np.unique(flags, axis=0, return_inverse=True, return_counts=True)
        if len(patterns) == 1 or counts.min() >= minimum:
            return flags
        rare = int(counts.argmin())
        others = [i for i in range(len(patterns)) if i != rare]
        far = np.abs(patterns - patterns[rare]).sum(axis=1)
        nearest = min(others, key=lambda i: (far[i], patterns[i].sum(), -counts[i], i))
        flags[place.reshape(-1) == rare] = patterns[nearest]


def _cox(target: np.ndarray, minimum: int) -> tuple[np.ndarray, np.ndarray | None]:
    event = (target[:, 1] > 0).astype(np.int64)
    if event.sum() < minimum:
        return np.stack([target[:, 0], np.zeros(len(target))], axis=1), None
    return target, event if len(event) - event.sum() >= minimum else np.zeros_like(event)


def _hazard(target: np.ndarray, minimum: int) -> tuple[np.ndarray, np.ndarray | None]:
    index, event = target[:, 0].astype(np.int64), (target[:, 1] > 0).astype(np.int64)
    moved = dealt_times(index, event, minimum=minimum)
    if moved is None:
        return np.full_like(target, UNKNOWN), None  # at risk nowhere
    return np.stack([moved.astype(np.float64), target[:, 1]], axis=1), 2 * moved + event


def _classes(target: np.ndarray, minimum: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Classes that a few have, have not or do not know are unknown to all, and so is the later of two classes that
    differ by a few."""
    told = np.array(target)
    kept: list[np.ndarray] = []
    for column in range(target.shape[1]):
        label = np.sign(target[:, column])  # -1 unknown, 0 no, 1 yes
        sizes = [(label == value).sum() for value in (-1, 0, 1)]
        pairs = [(a, b) for before in kept for a in _sides(label) for b in _sides(before)]
        near = any(few((a != b).sum(), minimum) for a, b in pairs)
        if few(np.array(sizes), minimum).any() or near:
            told[:, column] = UNKNOWN
        else:
            kept.append(label)
    if not kept:
        return told, None
    if target.shape[1] > 1:
        return told, np.full(len(target), -1)
    return told, (kept[0] + 1).astype(np.int64)


def _sides(label: np.ndarray) -> list[np.ndarray]:
    return [label == 1, label == 0, label >= 0]


_OUTCOMES = {"cox": _cox, "hazard": _hazard, "logistic": _classes, "ridge": _classes}
